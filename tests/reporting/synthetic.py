"""Run records made up for tests, written as a sweep would write them."""

import copy
import json
import math

FD_PROTOCOL = {
    "feature_network": "alexnet",
    "feature_file_sha256": "0123456789abcdef" * 4,
    "reference": "photos/train",
    "reference_count": 24000,
    "samples": 2560,
    "resize": "64 px",
    "weights": "ema",
    "checkpoint": 1200,
}
SPLIT_PROTOCOL = {"split": "photos/validation", "samples": 2560, "weights": "ema", "checkpoint": 1200}
LEVELS = {8: [8, 6, 5], 10: [8, 5, 5, 5], 12: [7, 5, 5, 5, 5]}


def record(quantizer="fsq", bits=10, seed=0, fd=10.0, usage=0.9, levels=None, sweep="tradeoff", **changes):
    """The JSON object of one finished run."""
    levels = (levels or LEVELS[bits]) if quantizer == "fsq" else None
    size = math.prod(levels) if levels else 2**bits
    tokens = 2560 * 16
    figures = {
        "rfd_alexnet_train": (fd, FD_PROTOCOL),
        "rfd_alexnet_validation": (fd - 3.0, FD_PROTOCOL | {"reference": "photos/validation", "reference_count": 2560}),
        "psnr": (20.0 + bits, SPLIT_PROTOCOL),
        "ssim": (0.75, SPLIT_PROTOCOL),
        "mse": (0.004, SPLIT_PROTOCOL),
        "usage": (usage, SPLIT_PROTOCOL),
        "codes_used": (round(usage * size), SPLIT_PROTOCOL),
        "entropy_bits": (0.9 * math.log2(size), SPLIT_PROTOCOL),
        "uniform_usage": (1 - (1 - 1 / size) ** tokens, SPLIT_PROTOCOL),
        "tokens": (tokens, SPLIT_PROTOCOL),
    }
    raw = {
        "experiment": "tradeoff_autoencoder",
        "sweep": sweep,
        "run": f"{quantizer}_{'x'.join(map(str, levels)) if sweep == 'levels' else bits}",
        "arg": f"quantizer={quantizer},bits={bits}",
        "quantizer": quantizer,
        "levels": levels,
        "codebook_size": size,
        "target_bits": bits,
        "num_tokens": 16,
        "parameters": 450_000 if quantizer == "fsq" else 450_000 + 256 * size,
        "seed": seed,
        "steps": 1200,
        "batch_size": 64,
        "data": {"source": "photos", "resolution": 32},
        "wall_time_s": 240.0,
        "device": "cpu",
        "git_revision": "abcdef0123456789",
        "versions": {"jax": "0.10.2"},
        "status": "finished",
        "figures": {name: {"value": value, "protocol": dict(protocol)} for name, (value, protocol) in figures.items()},
        "level_histograms": [[6 + i] + [1] * (level - 2) + [3] for i, level in enumerate(levels)] if levels else None,
        "saturation": None,
    }
    return copy.deepcopy(raw | changes)


def write(directory, *records):
    """Writes each record into a run directory of its own."""
    for r in records:
        folder = directory / r["run"] / f"seed{r['seed']}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(r))
    return directory


def paper_like():
    """Seven runs in which the paper's claims hold."""
    return [
        record("fsq", 8, fd=12.0, usage=0.98),
        record("vq", 8, fd=11.5, usage=0.99),
        record("fsq", 10, fd=10.0, usage=0.91),
        record("vq", 10, fd=10.4, usage=0.6),
        record("fsq", 12, fd=9.0, usage=0.7),
        record("vq", 12, fd=11.25, usage=0.125),
        record("vq_no_entropy", 10, fd=14.0, usage=0.08),
    ]
