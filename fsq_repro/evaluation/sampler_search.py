"""Samplers of one stage-II run side by side, on the validation split: what a study's sampler is chosen by."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from fsq_repro.data.sources import Source
from fsq_repro.errors import UserError, explained
from fsq_repro.evaluation.sampling import draw_samples
from fsq_repro.factories import maskgit as maskgit_factory
from fsq_repro.factories import scorers as scorer_factory
from fsq_repro.inference.image_generator import ImageGenerator, load_image_generator
from fsq_repro.metrics.frechet import frechet_distance
from fsq_repro.metrics.scoring import Scorer
from fsq_repro.runtime.run_dir import RunDir, changed


@dataclasses.dataclass(frozen=True)
class SamplerSearch:
    """A run and what its samples are scored by; `open` makes one."""

    config: ConfigDict
    image_generator: ImageGenerator
    scorers: Sequence[Scorer]
    validation: Source

    @classmethod
    def open(cls, run: RunDir, *, stage1: str | None = None) -> "SamplerSearch":
        """Loads the run's averaged weights, its networks and its validation images. UserError where they do not fit."""
        image_generator = load_image_generator(run, stage1=stage1)
        with explained():
            scorers = scorer_factory.build_scorers(run.config, run.config.data.resolution)
            validation = maskgit_factory.build_source(run.config, "validation")
        return cls(run.config, image_generator, scorers, validation)

    def score(self, trials: Sequence[Mapping[str, float]], samples: int) -> Iterator[dict[str, float]]:
        """Frechet distance to the validation images by network, for each trial as it comes.

        Distances of few samples are too large, all by about as much: they rank the trials and are no result.

        Args:
          trials: fields of `config.sampler` and their values.
          samples: number of samples, as many per class.

        Raises UserError for a field that the sampler does not have, or a value that it refuses, before any sample.
        """
        sampler = self.config.sampler
        for unknown in sorted({key for trial in trials for key in trial} - set(sampler)):
            raise UserError(f"sampler.{unknown} is no field of the run, which has {', '.join(sorted(sampler))}")
        configs = [changed(self.config, {f"sampler.{key}": value for key, value in t.items()}) for t in trials]
        mine = self.image_generator
        with explained():
            generators = [maskgit_factory.build_generator(config, mine.generator.grid) for config in configs]
        labels_N = np.arange(samples) % self.config.data.num_classes
        for config, generator in zip(configs, generators, strict=True):
            image_generator = ImageGenerator(
                generator, mine.params, mine.tokenizer, step=mine.step, batch_size=mine.batch_size
            )
            guidance = float(config.sampler.guidance_weight)
            drawn, _ = draw_samples(image_generator, labels_N, guidance, self.scorers, ())
            yield {
                s.name: frechet_distance(drawn[s.name].pool, s.reference_moments(self.validation)) for s in self.scorers
            }
