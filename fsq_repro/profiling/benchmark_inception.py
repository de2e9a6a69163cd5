"""Rate and peak memory of the Inception features, beside those of pytorch-fid on the same images and weights.

Each side runs in a process of its own, one after the other: this module as `python -m` for ours,
`scripts/pytorch_fid_rate.py` in an environment that has that package.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from fsq_repro.errors import UserError
from fsq_repro.metrics.feature_extraction import load_extractor

THEIRS = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts" / "pytorch_fid_rate.py"
SIDE = 256  # pixels of the images, before either resizes them to 299


def compare_rates(weights: str, python: str, *, images: int, batch_size: int) -> dict[str, float]:
    """Both sides' images/s and peak memory (of the whole process), their ratios, and how far the features differ.

    Args:
      weights: Inception's weight file; python: the interpreter of an environment with pytorch-fid.
      images: number of images, drawn at random; a batch more warms up.

    UserError if a side failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        np.save(f"{folder}/images.npy", rng.integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8))
        results, features = {}, {}
        ours = [sys.executable, "-m", "fsq_repro.profiling.benchmark_inception"]
        for name, command in (("ours", ours), ("pytorch-fid", [python, str(THEIRS)])):
            command += [weights, f"{folder}/images.npy", str(batch_size), f"{folder}/{name}.npy"]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if run.returncode:
                raise UserError(f"the side {name!r} failed with exit code {run.returncode}; its message is above")
            results[name] = json.loads(run.stdout.splitlines()[-1])
            features[name] = np.load(f"{folder}/{name}.npy")
    a, b = results["ours"], results["pytorch-fid"]
    return {
        **{f"{name}, images_per_s": r["images_per_s"] for name, r in results.items()},
        **{f"{name}, peak_memory_mib": r["peak_memory_mib"] for name, r in results.items()},
        "rate, ours / pytorch-fid": a["images_per_s"] / b["images_per_s"],
        "memory, ours / pytorch-fid": a["peak_memory_mib"] / b["peak_memory_mib"],
        "largest difference of features": float(np.abs(features["ours"] - features["pytorch-fid"]).max()),
        "mean of features": float(features["ours"].mean()),
    }


def measure(weights: str, images_file: str, batch_size: int, features_file: str) -> dict[str, float]:
    """Our side: pool_3 features of all images, written to `features_file`."""
    images = np.load(images_file)
    extractor = load_extractor("inception", path=weights, resize="pytorch-fid", batch_size=batch_size)
    extractor(images[:batch_size])  # compiles
    started = time.monotonic()
    parts = [extractor(images[i : i + batch_size])["pool"] for i in range(0, len(images), batch_size)]
    seconds = time.monotonic() - started
    np.save(features_file, np.concatenate(parts))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    return {"images_per_s": len(images) / seconds, "peak_memory_mib": peak}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))
