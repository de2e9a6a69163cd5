"""The kinds of experiments by `config.trainer`. A new kind is a file of its own and a line here."""

from ml_collections import ConfigDict

from fsq_repro.experiments.autoencoder import AutoencoderKind
from fsq_repro.experiments.code_predictor import CodePredictorKind
from fsq_repro.experiments.kind import Kind
from fsq_repro.experiments.label_autoencoder import LabelAutoencoderKind
from fsq_repro.experiments.maskgit import MaskGITKind

KINDS: dict[str, Kind] = {
    "autoencoder": AutoencoderKind(),
    "maskgit": MaskGITKind(),
    "uvim_stage1": LabelAutoencoderKind(),
    "uvim_stage2": CodePredictorKind(),
}


def kind_of(config: ConfigDict) -> Kind:
    """The kind of experiment that a config describes. ValueError for an unknown trainer."""
    trainer = config.get("trainer")
    if trainer not in KINDS:
        raise ValueError(f"trainer = {trainer!r} is not one of {', '.join(KINDS)}")
    return KINDS[trainer]
