"""Evaluates a run directory of UViM, either stage, on the whole test split.

Stage I is given the true labels ("oracle": the best that stage II can do), stage II the image alone. Codebook usage is
that of the test labels' codes; stage II's record repeats stage I's.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence

import numpy as np

from fsq_repro.data.pipeline import Batch
from fsq_repro.errors import UserError, explained, explained_items
from fsq_repro.evaluation.evaluated import evaluated
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from fsq_repro.factories import scorers as scorer_factory
from fsq_repro.inference.label_coder import load_label_coder
from fsq_repro.inference.label_predictor import load_label_predictor
from fsq_repro.metrics.table import CODEBOOK_USAGE, MetricKey
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.runtime.run_dir import Measured, RunDir, read_metrics
from fsq_repro.tasks.base import EvaluationData, Maps
from fsq_repro.visualization.grids import save_png

log = logging.getLogger(__name__)

SEED = 0  # of decoding, where the temperature is above 0


def evaluate_run(
    run: RunDir,
    *,
    stage1: str | None = None,
    weights: str | None = None,
    step: int | None = None,
    networks: Sequence[str] | None = None,
    inception: str | None = None,
) -> dict:
    """Measures the run and merges the metrics into its record.

    All is as of `evaluation.autoencoder.evaluate_run` but for:

    Args:
      stage1: see `load_label_predictor`; of no use for stage I.
      weights: "raw" or None, which is the same: UViM keeps no average.
      networks, inception: of colorization.
    """
    if weights not in (None, "raw"):
        raise UserError(f"--weights={weights} is not kept by UViM's trainers; --weights=raw is")
    config = run.config.copy_and_resolve_references()
    usage, sampler = None, {}
    if config.trainer == "uvim_stage1":
        coder = load_label_coder(run, step=step)
        task, step = coder.task, coder.step
        usage = CodebookUsage(coder.model.quantizer.codebook_size)
    else:
        predictor = load_label_predictor(run, stage1=stage1, step=step)
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
        sources = [label_autoencoder_factory.build_source(config, split) for split in ("train", "test")]
        make_scorers = functools.partial(scorer_factory.build_scorers, config)
        evaluation = task.evaluation(
            EvaluationData(*sources, config.data.to_dict(), config.eval.to_dict(), make_scorers)
        )
        scorer, source = evaluation.scorer, evaluation.source
        batches = label_autoencoder_factory.build_eval_batches(config, evaluation.preparation, source, processes=1)

    first = 0
    for batch in explained_items(batches):
        maps, count = predict(batch, first), int(batch["mask"].sum())
        truths = [source[first + i] for i in range(count)]
        scorer.update({name: x[:count] for name, x in maps.items()}, truths)
        first += count
    if first != len(source):
        raise ValueError(f"the evaluation saw {first} images, the split has {len(source)}.")

    protocol = {"data": config.data.source, "resolution": config.data.resolution, "split": "test"}
    protocol |= evaluation.protocol | {"images": first, "weights": "raw", "checkpoint": step}
    particular, measured = scorer.protocols(), {}
    for key, value in scorer.compute().items():
        of_model = {} if key.baseline else sampler  # baselines are not sampled
        measured[key] = Measured(value, protocol | of_model | particular.get(key, {}))
    facts = {}
    if usage is not None:
        measured |= {MetricKey(name): Measured(value, protocol) for name, value in usage.compute().items()}
        if coder.levels:
            facts = usage.level_facts(coder.levels)
    else:
        theirs = read_metrics(RunDir(stage1 or config.stage1).record)
        usage_keys = [MetricKey(name) for name in CODEBOOK_USAGE]
        measured |= {key: theirs[key] for key in usage_keys if key in theirs}
        if MetricKey("usage") not in theirs:
            log.warning("no codebook usage: stage I in %s has not been evaluated", stage1 or config.stage1)
    of_weights = {} if usage is None else {"weights": coder.fingerprint}
    facts |= evaluated(run, config, sources, step, **of_weights)
    picture = "evaluation"
    if step != config.steps:
        measured = {dataclasses.replace(key, weights="raw", step=step): m for key, m in measured.items()}
        picture, facts = f"evaluation@raw,{step}", {}
    save_png(run.samples / f"{picture}.png", task.rows(scorer.shown.items, {"prediction": scorer.shown.maps}))
    return run.update_record(measured, **facts)
