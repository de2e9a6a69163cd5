"""pytorch-fid's side of `benchmark.py --inception`, to be run in an environment that has that package, without ours.

python scripts/pytorch_fid_rate.py WEIGHTS IMAGES.npy BATCH_SIZE FEATURES.npy
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from pytorch_fid import inception


def main(weights: str, images_file: str, batch_size: int, features_file: str) -> None:
    inception.load_state_dict_from_url = lambda url, progress: torch.load(weights)  # in place of the download
    network = inception.InceptionV3([3]).eval()
    images = np.load(images_file)

    def features(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            x = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
            return network(x)[0].flatten(1).numpy()

    features(images[:batch_size])
    started = time.monotonic()
    parts = [features(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    seconds = time.monotonic() - started
    np.save(features_file, np.concatenate(parts))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    print(json.dumps({"images_per_s": len(images) / seconds, "peak_memory_mib": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
