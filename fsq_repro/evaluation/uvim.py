"""Evaluates a run directory of UViM, either stage, on the whole validation split.

Stage I is given the true labels ("oracle": the best that stage II can do), stage II the image alone. Codebook usage is
that of the validation labels' codes; stage II's record repeats stage I's.
"""

import logging
import pathlib
from collections.abc import Sequence

import numpy as np

from fsq_repro.data.pipeline import Batch
from fsq_repro.errors import UserError, explained, explained_items
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import scorers as scorer_factory
from fsq_repro.inference.label_coder import load_label_coder
from fsq_repro.inference.label_predictor import load_label_predictor
from fsq_repro.metrics.usage import CodebookUsage, saturation
from fsq_repro.runtime import run_dir
from fsq_repro.tasks.colorization_scoring import COLTRAN_PX, ListedColorization, split_colorization
from fsq_repro.tasks.uvim_scoring import DepthScorer, Maps, PanopticScorer
from fsq_repro.visualization.grids import save_png

log = logging.getLogger(__name__)

SEED = 0  # of decoding, where the temperature is above 0
USAGE = ("usage", "entropy_bits", "tokens", "codes_used", "uniform_usage", "perplexity")


def evaluate_run(
    path: pathlib.Path,
    *,
    stage1: str | None = None,
    weights: str = "raw",
    step: int | None = None,
    networks: Sequence[str] | None = None,
    inception: str | None = None,
) -> dict:
    """Measures the run and merges the figures into `record.json`.

    Args:
      path: the run directory.
      stage1: see `load_label_predictor`; of no use for stage I.
      weights: "raw"; UViM keeps no average.
      step: a checkpoint's step; the last by default. Figures of another get "@raw,STEP" behind their name.
      networks, inception: of colorization, as in `stage1_evaluation.evaluate_run`.

    Returns:
      The record.

    Raises:
      UserError: no run or checkpoint there, or its data are missing or do not fit the task.
    """
    config = run_dir.RunDir(path).config
    if weights != "raw":
        raise UserError(f"--weights={weights} is not kept by UViM's trainers; --weights=raw is")
    usage, sampler = None, {}
    if config.trainer == "uvim_stage1":
        coder = load_label_coder(path, step=step)
        task, step = coder.task, coder.step
        usage = CodebookUsage(coder.model.quantizer.codebook_size)
    else:
        predictor = load_label_predictor(path, stage1=stage1, step=step)
        task, step = predictor.task, predictor.step
        temperature = config.sampler.temperature
        sampler = {"sampler": "autoregressive", "temperature": temperature} | ({"seed": SEED} if temperature else {})

    def predict(batch: Batch, first: int) -> Maps:
        if usage is None:
            return predictor.predict_prepared(batch["context"], first + np.arange(len(batch["mask"])), seed=SEED)
        maps, codes_BxS = coder.reconstruct({name: x for name, x in batch.items() if name != "mask"})
        usage.update(np.asarray(codes_BxS)[batch["mask"]])
        return {name: np.asarray(x) for name, x in maps.items()}

    config = scorer_factory.choose_networks(config, networks, inception)
    with explained():
        e, train = config.eval, label_autoencoder_factory.build_source(config, "train")
        source = label_autoencoder_factory.build_source(config, "validation")
        batches = label_autoencoder_factory.build_eval_batches(config, task, source, processes=1)
        more = {"crop": config.data.crop} if task.name == "depth" else {}
        if task.name == "depth":
            scorer = DepthScorer(train, source[0]["depth"].shape, e.baseline_images)
        elif task.name == "panoptic":
            scorer = PanopticScorer(train, e.baseline_images, config.data.resolution)
        elif e.eval_names:
            scorers = scorer_factory.build_scorers(config, COLTRAN_PX)
            scorer = ListedColorization(source, e.eval_names, e.reference_names, scorers, e.batch_size)
            source, more = scorer.source, {"list": pathlib.Path(e.eval_names).name}
            batches = scorer.batches(config.data.resolution)
        else:
            resolution = config.data.resolution
            scorer = split_colorization(train, source, scorer_factory.build_scorers(config, resolution), resolution)

    first = 0
    for batch in explained_items(batches):
        maps, count = predict(batch, first), int(batch["mask"].sum())
        truths = [source[first + i] for i in range(count)]
        scorer.update({name: x[:count] for name, x in maps.items()}, truths)
        first += count
    if first != len(source):
        raise ValueError(f"the evaluation saw {first} images, the split has {len(source)}.")

    protocol = {"data": config.data.source, "resolution": config.data.resolution, "split": "validation"} | more
    protocol |= {"images": first, "weights": "raw", "checkpoint": step}
    figures = {
        name: {"value": x, "protocol": protocol | ({} if "@" in name else sampler)}  # baselines are not sampled
        for name, x in scorer.compute().items()
    }
    for name, extra in scorer.protocols().items():
        figures[name]["protocol"] = figures[name]["protocol"] | extra
    facts = {}
    if usage is not None:
        figures |= {name: {"value": value, "protocol": protocol} for name, value in usage.compute().items()}
        if coder.levels:
            histograms = usage.level_histograms(coder.levels)
            facts = {"level_histograms": [h.tolist() for h in histograms], "saturation": saturation(histograms)}
    else:
        theirs = run_dir.RunDir(pathlib.Path(stage1 or config.stage1)).record["figures"]
        figures |= {name: theirs[name] for name in USAGE if name in theirs}
        if "usage" not in theirs:
            log.warning("no codebook usage: stage I in %s has not been evaluated", stage1 or config.stage1)
    suffix, facts = ("", facts) if step == config.steps else (f"@raw,{step}", {})
    save_png(path / "samples" / f"evaluation{suffix}.png", scorer.picture())
    return run_dir.RunDir(path).update_record(figures={name + suffix: f for name, f in figures.items()}, **facts)
