"""Every metric that a record may hold, declared once: evaluations write by it, reports show by it. Imports no jax.

A measurement is named by a `MetricKey`: the metric, and of it what tells one measurement from another. How it was
measured in full is its protocol, which stands beside the value in the record.
"""

import dataclasses
from typing import Any, Literal

# Feature networks in the order of trust: only the first one's distance may be called FID.
FEATURE_NETWORKS = ("inception", "efficientnet", "alexnet", "vgg16")
# What a distance is taken to; "names": the published lists of file names, "file": published statistics.
REFERENCES = ("names", "file", "train", "test")
# What is measured in a model's place.
BASELINES = {
    "mean_depth": "training mean depth everywhere",
    "mean_map": "training mean depth of each pixel",
    "majority_map": "most frequent class at each place of the training maps",
    "grey": "grey input itself",
    "truth": "true colours",
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
      name: in records.
      title: of columns and axes; {network} and {reference} stand for those of the key.
      form: format of the shown number.
      unit: "" for a pure number.
      better: the good direction; None where there is none.
      scale: what a recorded value is multiplied by before it is shown.
      paper: where the paper reports its counterpart, "" where it does not.
      of_data: set by the split and the codebook size, the same for all seeds: no deviation is shown.
    """

    name: str
    title: str
    form: str = "{:.3f}"
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    scale: float = 1.0
    paper: str = ""
    of_data: bool = False

    def show(self, value: float) -> str:
        """A recorded value as text, without its unit."""
        return self.form.format(self.scale * value)


_DISTANCE: dict[str, Any] = {"form": "{:.2f}", "better": "lower"}
_ERROR: dict[str, Any] = {"better": "lower"}
_RATIO: dict[str, Any] = {"better": "higher"}
_COUNT: dict[str, Any] = {"form": "{:,.0f}"}
_PANOPTIC: dict[str, Any] = {"form": "{:.1f}", "better": "higher", "scale": 100.0}
_METRICS = (
    # Reconstruction
    Metric("reconstruction_fd", "r{distance} ({reference})", paper="Fig. 3a", **_DISTANCE),
    Metric("psnr", "PSNR", "{:.2f}", "dB", "higher"),
    Metric("ssim", "SSIM", **_RATIO),
    Metric("mse", "MSE", "{:.3g}", better="lower"),
    # Codebook usage
    Metric("usage", "usage", "{:.1f}", "%", "higher", scale=100.0, paper="Fig. 3c, Table 2"),
    Metric("codes_used", "codes used", better="higher", paper="Fig. 3c", **_COUNT),
    Metric("entropy_bits", "entropy", "{:.2f}", "bits"),
    Metric("perplexity", "perplexity", "{:.1f}"),
    Metric("uniform_usage", "usage of a uniform source", "{:.1f}", "%", scale=100.0, of_data=True),
    Metric("tokens", "tokens counted", of_data=True, **_COUNT),
    # Sampling
    Metric("sampling_fd", "sampling {distance} ({reference})", paper="Fig. 3b, Fig. 4", **_DISTANCE),
    Metric("spatial_fd", "s{distance} ({reference})", **_DISTANCE),
    Metric("inception_score", "Inception score", "{:.1f}", better="higher"),
    Metric("precision", "precision-{network}", paper="Fig. 4", **_RATIO),
    Metric("recall", "recall-{network}", paper="Fig. 4", **_RATIO),
    Metric("class_fd_own", "FD-{network} own class", **_DISTANCE),
    Metric("class_fd_other", "FD-{network} other class", "{:.2f}"),
    Metric("class_fd_soup", "FD-{network} soup", "{:.2f}", paper="appendix A.3 (pictures)"),
    Metric("class_fd_marginal_soup", "FD-{network} marginal soup", "{:.2f}", paper="appendix A.3 (pictures)"),
    Metric("class_agreement", "class agreement-{network}", "{:.1f}", "%", "higher", scale=100.0),
    Metric("class_agreement_reconstructed", "of reconstructions-{network}", "{:.1f}", "%", "higher", scale=100.0),
    Metric("class_agreement_real", "of test images-{network}", "{:.1f}", "%", scale=100.0, of_data=True),
    # Compression
    Metric("compression_bits", "compression cost", unit="bits per token", paper="Fig. 3d", **_ERROR),
    Metric("coder_bits", "coder", unit="bits per token", **_ERROR),
    Metric("coder_expected_bits", "model's cost of the coded images", unit="bits per token", **_ERROR),
    # Depth
    Metric("rmse", "RMSE", unit="m", paper="Table 2", **_ERROR),
    Metric("abs_rel", "abs-rel", **_ERROR),
    Metric("log10", "log10", **_ERROR),
    Metric("delta1", "δ < 1.25", **_RATIO),
    Metric("delta2", "δ < 1.25²", **_RATIO),
    Metric("delta3", "δ < 1.25³", **_RATIO),
    # Panoptic segmentation
    *(
        Metric(f"{name}{part}", f"{name.upper()}{part.replace('_', ' ')}", paper=paper, **_PANOPTIC)
        for name, paper in (("pq", "Table 2"), ("sq", ""), ("rq", ""))
        for part in ("", "_things", "_stuff")
    ),
    *(Metric(f"classes{part}", f"classes{part.replace('_', ' ')}", **_COUNT) for part in ("", "_things", "_stuff")),
    # Colorization
    Metric("colorization_fd", "{distance} ({reference})", paper="Table 2", **_DISTANCE),
    Metric("colourfulness", "colourfulness", "{:.3g}"),
    # Of any evaluation
    Metric("images", "images", of_data=True, **_COUNT),
    Metric("images_skipped", "images skipped", of_data=True, **_COUNT),
)
METRICS = {metric.name: metric for metric in _METRICS}
# Of a split's codes, which stage I sets: a record of UViM's stage II repeats its stage I's.
CODEBOOK_USAGE = ("usage", "entropy_bits", "tokens", "codes_used", "uniform_usage", "perplexity")


@dataclasses.dataclass(frozen=True)
class MetricKey:
    """Which measurement of a run a number is.

    Attributes:
      metric: a name of `METRICS`.
      network: the feature network, "" where there is none.
      reference: what a distance is taken to, "" where there is none.
      baseline: what was measured in the model's place, a name of `BASELINES`; "" for the model.
      guidance: the guidance weight where it is another than the config's main one or is one of several; else None.
      weights, step: "ema" or "raw" and the checkpoint's step where they are not those that tables show; else "", None.
    """

    metric: str
    network: str = ""
    reference: str = ""
    baseline: str = ""
    guidance: float | None = None
    weights: str = ""
    step: int | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is not one of {', '.join(METRICS)}")

    @property
    def declared(self) -> Metric:
        """How the metric is shown."""
        return METRICS[self.metric]

    @property
    def is_main(self) -> bool:
        """Whether tables may show it as the run's own: the model at its main guidance weight and checkpoint."""
        return not self.baseline and self.guidance is None and not self.weights and self.step is None

    @property
    def title(self) -> str:
        """Column title without unit: `rFD-alexnet (train)`, `sampling FID (file)`, `FID-5k`, `PSNR`.

        Inception's alone is FID. Sampling FID is not shortened: sFID is the ADM suite's name for FID of spatial
        features (`spatial_fd`).
        """
        if (self.metric, self.network, self.reference) == ("colorization_fd", "inception", "names"):
            return "FID-5k"
        distance = "FID" if self.network == "inception" else f"FD-{self.network}"
        return self.declared.title.format(distance=distance, network=self.network, reference=self.reference)

    def to_json(self) -> dict[str, Any]:
        """The fields that say something."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value not in ("", None)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "MetricKey":
        """Reads the fields of a record's entry, whatever else stands in it. ValueError for an unknown metric."""
        if not isinstance(entry.get("metric"), str):
            raise ValueError(f"a measurement needs a metric, got {entry.get('metric')!r}")
        return cls(**{field.name: entry[field.name] for field in dataclasses.fields(cls) if field.name in entry})

    @classmethod
    def of_record(cls, entry: dict[str, Any], record: dict[str, Any]) -> "MetricKey":
        """As `from_json`, of an entry in a record whose run may have been trained further since.

        Where the protocol names another checkpoint than the last one, of the record's `steps`, the key has weights and
        step, as if that checkpoint had been chosen: it never counts as a measurement of the last one.
        """
        key, protocol, last = cls.from_json(entry), entry.get("protocol"), record.get("steps")
        if repeats_stage1(key, record):
            last = record["stage1"].get("steps")
        measured = protocol if isinstance(protocol, dict) else {}
        checkpoint = measured.get("checkpoint")
        if key.step is not None or None in (checkpoint, last) or checkpoint == last:
            return key
        return dataclasses.replace(key, weights=key.weights or measured.get("weights", ""), step=checkpoint)

    def __str__(self) -> str:
        """For the terminal: `sampling_fd alexnet train guidance=0.5 raw step=100`."""
        parts = [self.metric, self.network, self.reference, self.baseline]
        parts += [] if self.guidance is None else [f"guidance={self.guidance:g}"]
        parts += [self.weights] + ([] if self.step is None else [f"step={self.step}"])
        return " ".join(part for part in parts if part)


def repeats_stage1(key: MetricKey, record: dict[str, Any]) -> bool:
    """Whether a record has this measurement from the record of its stage I."""
    return key.metric in CODEBOOK_USAGE and bool(record.get("task")) and isinstance(record.get("stage1"), dict)
