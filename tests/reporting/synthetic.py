"""Run records made up for tests, written as a sweep would write them."""

import copy
import dataclasses
import itertools
import json
import math

from fsq_repro.metrics.table import CODEBOOK_USAGE, METRICS, MetricKey
from fsq_repro.reporting.records import parse_record

RFD, SFD, CFD = (MetricKey(f"{what}_fd", "alexnet", "train") for what in ("reconstruction", "sampling", "colorization"))
RFD_TEST, CFD_TEST = (MetricKey(key.metric, "alexnet", "test") for key in (RFD, CFD))

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
SPLIT_PROTOCOL = {"split": "photos/test", "samples": 2560, "weights": "ema", "checkpoint": 1200}
LEVELS = {8: [8, 6, 5], 10: [8, 5, 5, 5], 12: [7, 5, 5, 5, 5], 14: [8, 8, 8, 6, 5]}


def metrics(measured):
    """The list of a record: metric's name or key -> (value, protocol)."""
    keys = {MetricKey(key) if isinstance(key, str) else key: found for key, found in measured.items()}
    return [{**key.to_json(), "value": value, "protocol": dict(protocol)} for key, (value, protocol) in keys.items()]


def entry(raw, key, **fields):
    """The entry of a metric, by key or by name and further fields."""
    key = MetricKey(key, **fields) if isinstance(key, str) else key
    (found,) = [m for m in raw["metrics"] if MetricKey.from_json(m) == key]
    return found


def add(raw, key, value, protocol):
    """Adds a metric to a record."""
    raw["metrics"] += metrics({key: (value, protocol)})


def without(raw, *names):
    """A record without these metrics."""
    return raw | {"metrics": [m for m in raw["metrics"] if m["metric"] not in names]}


def only(raw, *names):
    """A record with these metrics alone."""
    return raw | {"metrics": [m for m in raw["metrics"] if m["metric"] in names]}


def three_seeds(raw, spread=0.001):
    """Each record with three seeds: its metrics, and these times 1 - and 1 + spread, but for what the data set."""
    records = []
    for r in raw:
        for seed in range(3):
            records.append(copy.deepcopy(r) | {"seed": seed})
            for m in records[-1]["metrics"]:
                if not METRICS[m["metric"]].of_data and "baseline" not in m:
                    m["value"] *= 1 + spread * (seed - 1)
    return records


def parsed(tmp_path, raw):
    """Records of JSON objects."""
    return [parse_record(r, tmp_path / f"{i}.json") for i, r in enumerate(raw)]


def tables(markdown):
    """Of each table of a text its rows, as dicts by header; footnote marks are cut off the headers."""
    blocks = itertools.groupby(markdown.splitlines(), key=lambda line: line.startswith("|"))
    found = []
    for is_table, block in blocks:
        if is_table:
            header, _, *rows = [[c.strip() for c in line.strip("|").split("|")] for line in block]
            found.append([dict(zip((c.split(" [")[0] for c in header), row, strict=True)) for row in rows])
    return found


def evaluated(raw):
    """The record with all metrics measured at its last step; usage in UViM's stage II is that of its stage I."""
    for m in raw["metrics"]:
        of_stage1 = raw.get("task") and raw.get("stage") == 2 and m["metric"] in CODEBOOK_USAGE
        if "checkpoint" in m["protocol"]:
            m["protocol"]["checkpoint"] = raw["stage1"]["steps"] if of_stage1 else raw["steps"]
    return raw


def record(quantizer="fsq", bits=10, seed=0, fd=10.0, usage=0.9, levels=None, sweep="tradeoff", **changes):
    """The JSON object of one finished run."""
    levels = (levels or LEVELS[bits]) if quantizer == "fsq" else None
    size = math.prod(levels) if levels else 2**bits
    tokens = 2560 * 16
    measured = {
        RFD: (fd, FD_PROTOCOL),
        RFD_TEST: (fd - 3.0, FD_PROTOCOL | {"reference": "photos/test", "reference_count": 2560}),
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
        "metrics": metrics(measured),
        "level_histograms": [[6 + i] + [1] * (level - 2) + [3] for i, level in enumerate(levels)] if levels else None,
        "saturation": None,
    }
    return evaluated(copy.deepcopy(raw | changes))


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


SAMPLER_PROTOCOL = FD_PROTOCOL | {"sampler": "parallel decoding", "decoding_steps": 12, "guidance weight": 0.0}
COST_PROTOCOLS = {
    "masked": SPLIT_PROTOCOL | {"schedule": "M2T, 12 groups, exponent 2.2"},
    "autoregressive": SPLIT_PROTOCOL | {"schedule": "teacher-forced, raster order"},
}


def stage2(quantizer="fsq", bits=10, seed=0, fd=20.0, cost=None, generator="masked", **changes):
    """The JSON object of one finished generator on the tokens of `record(quantizer, bits)`."""
    raw = record(quantizer, bits, seed)
    size = raw["codebook_size"]
    entropy = 0.9 * math.log2(size)
    cost = 0.8 * math.log2(size) if cost is None else cost
    sampled = SAMPLER_PROTOCOL | ({} if generator == "masked" else {"sampler": "raster order", "decoding_steps": 16})
    measured = {
        SFD: (fd, sampled),
        MetricKey("precision", "alexnet"): (0.7, sampled),
        MetricKey("recall", "alexnet"): (0.4, sampled),
        MetricKey("class_fd_own", "alexnet"): (1.5 * fd, sampled),
        MetricKey("class_fd_other", "alexnet"): (4.0 * fd, sampled),
        MetricKey("class_fd_soup", "alexnet"): (3.0 * fd, sampled),
        MetricKey("class_fd_marginal_soup", "alexnet"): (5.0 * fd, sampled),
        MetricKey("class_agreement", "alexnet"): (0.5, sampled),
        MetricKey("class_agreement_reconstructed", "alexnet"): (0.7, SPLIT_PROTOCOL),
        MetricKey("class_agreement_real", "alexnet"): (0.8, SPLIT_PROTOCOL),
        "compression_bits": (cost, COST_PROTOCOLS[generator]),
        "coder_bits": (1.004 * cost, COST_PROTOCOLS[generator] | {"samples": 8}),
        "coder_expected_bits": (cost, COST_PROTOCOLS[generator] | {"samples": 8}),
        "entropy_bits": (entropy, SPLIT_PROTOCOL),
        "usage": (entry(raw, "usage")["value"], SPLIT_PROTOCOL),
        "uniform_usage": (1.0, SPLIT_PROTOCOL),
        "tokens": (2560 * 16, SPLIT_PROTOCOL),
    }
    facts = {
        "experiment": "tradeoff_maskgit",
        "stage": 2,
        "generator": generator,
        "stage1": {key: raw[key] for key in ("experiment", "run", "steps", "batch_size", "seed")},
        "run": f"{generator}_{quantizer}_{bits}",
        "steps": 2000,
        "metrics": metrics(measured),
        "level_histograms": None,
    }
    return evaluated(copy.deepcopy(raw | facts | changes))


def paper_like_stage2():
    """Generators in which the paper's claims hold, both kinds."""
    masked = (
        ("fsq", 8, 21.0, 6.3),
        ("vq", 8, 20.5, 6.2),
        ("fsq", 10, 19.0, 7.7),
        ("vq", 10, 19.5, 7.5),
        ("fsq", 12, 18.0, 9.3),
        ("vq", 12, 20.0, 8.9),
    )
    causal = (("fsq", 8, 20.6, 6.2), ("fsq", 10, 18.8, 7.5), ("vq", 8, 20.4, 6.1))
    return [stage2(q, b, fd=fd, cost=cost) for q, b, fd, cost in masked] + [
        stage2(q, b, fd=fd, cost=cost, generator="autoregressive") for q, b, fd, cost in causal
    ]


def guided(quantizer="fsq", best=0.2, **changes):
    """A generator of the guidance study: sampling distance lowest at `best`, precision rising and recall falling."""
    raw = stage2(quantizer, 10, sweep="guidance", run=f"guidance_{quantizer}", **changes)
    for weight in (0.0, 0.05, 0.1, 0.2, 0.4):
        values = {
            SFD: 20.0 + 60 * (weight - best) ** 2,
            MetricKey("precision", "alexnet"): 0.6 + 0.5 * weight,
            MetricKey("recall", "alexnet"): 0.55 + best / 4 - 0.4 * weight,
        }
        for key, value in values.items():
            if weight == 0:
                entry(raw, key)["value"] = value
            else:
                protocol = entry(raw, key)["protocol"] | {"guidance weight": weight}
                add(raw, dataclasses.replace(key, guidance=weight), value, protocol)
    return raw


TASK_PROTOCOLS = {
    "depth": {"data": "scenes", "resolution": 64, "split": "test", "images": 256, "crop": "none"},
    "panoptic": {"data": "scenes", "resolution": 64, "split": "test", "images": 256},
    "colorization": {"data": "photos", "resolution": 64, "split": "test", "images": 256},
}
ORACLE = {"weights": "raw", "checkpoint": 800}
PREDICTED = {"weights": "raw", "checkpoint": 500, "sampler": "autoregressive", "temperature": 0.0, "sampler seed": 0}


def uvim(task="depth", quantizer="fsq", context=True, stage=2, seed=0, score=0.5, usage=0.98, stage1_seed=0, **changes):
    """The JSON object of one finished UViM run: a predictor (stage 2) or a label autoencoder (stage 1)."""
    size, levels = (4375, LEVELS[12]) if quantizer == "fsq" else (4096, None)
    name = f"{task}_{quantizer}{'' if context else '_no_context'}"
    shared = TASK_PROTOCOLS[task]
    how = shared | (ORACLE if stage == 1 else PREDICTED)
    fd = {"feature_network": "alexnet", "reference": "photos/train", "reference_count": 1000}
    measured = {
        "depth": {
            **{n: (v, how) for n, v in (("rmse", score), ("abs_rel", score / 4), ("log10", score / 10))},
            **{f"delta{i}": (1 - score / 2**i, how) for i in (1, 2, 3)},
            "images": (256, how),
            "images_skipped": (0, how),
            MetricKey("rmse", baseline="mean_depth"): (1.0, shared),
            MetricKey("rmse", baseline="mean_map"): (0.9, shared),
        },
        "panoptic": {
            **{f"{n}{s}": (score, how) for n in ("pq", "sq", "rq") for s in ("", "_things", "_stuff")},
            "classes": (9, how),
            MetricKey("pq", baseline="majority_map"): (0.1, shared),
        },
        "colorization": {
            CFD: (score, how | fd),
            CFD_TEST: (score - 3, how | fd | {"reference": "photos/test"}),
            "colourfulness": (30.0, how),
            "mse": (0.0123, how),
            MetricKey("colorization_fd", "alexnet", "train", baseline="grey"): (90.0, shared | fd),
            MetricKey("colourfulness", baseline="truth"): (41.5, shared),
            MetricKey("colourfulness", baseline="grey"): (0.0, shared),
        },
    }[task]
    counted = shared | ORACLE
    measured |= {
        "usage": (usage, counted),
        "codes_used": (round(usage * size), counted),
        "entropy_bits": (11.0, counted),
        "perplexity": (2.0**11, counted),
        "tokens": (65536, counted),
        "uniform_usage": (1.0, counted),
    }
    raw = {
        "experiment": f"uvim_{task}",
        "sweep": "uvim",
        "run": name if stage == 2 else f"{name}_stage1",
        "task": task,
        "context": context,
        "stage": stage,
        "quantizer": quantizer,
        "levels": levels,
        "codebook_size": size,
        "target_bits": 12,
        "num_tokens": 256,
        "parameters": 1_000_000 + size,
        "seed": seed,
        "steps": 500 if stage == 2 else 800,
        "batch_size": 32,
        "data": {"source": shared["data"], "resolution": 64},
        "wall_time_s": 120.0,
        "device": "cpu",
        "git_revision": "abcdef0123456789",
        "status": "finished",
        "metrics": metrics(measured),
    }
    if stage == 2:
        raw["generator"] = "autoregressive"
        raw["stage1"] = {
            "experiment": f"uvim_{task}",
            "run": f"{name}_stage1",
            "steps": 800,
            "batch_size": 32,
            "seed": stage1_seed,
            "fingerprint": "0f",
        }
    return evaluated(copy.deepcopy(raw | changes))


def paper_like_uvim():
    """Both stages of the three tasks, in which the paper's claims hold."""
    runs = (
        ("depth", "fsq", True, 0.473, 0.15, 0.99),
        ("depth", "ema_vq", True, 0.468, 0.16, 0.99),
        ("depth", "ema_vq_no_splitting", True, 0.49, 0.2, 0.0078),
        ("panoptic", "fsq", True, 0.432, 0.76, 1.0),
        ("panoptic", "ema_vq", True, 0.434, 0.75, 1.0),
        ("panoptic", "fsq", False, 0.402, 0.7, 0.99),
        ("panoptic", "ema_vq", False, 0.39, 0.66, 0.99),
        ("colorization", "fsq", True, 17.2, 15.0, 1.0),
        ("colorization", "ema_vq", True, 16.9, 15.6, 1.0),
    )
    return [
        uvim(task, quantizer, context, stage, score=score, usage=usage)
        for task, quantizer, context, predicted, oracle, usage in runs
        for stage, score in ((2, predicted), (1, oracle))
    ]
