"""The quantizers by the names that configs give them. A new one is a file of its own and a line here."""

import dataclasses
from typing import Any

from flax import linen as nn

from fsq_repro.quantizers.ema_restart import EmaRestartQuantizer
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.fsq import FSQ
from fsq_repro.quantizers.l2_vq import L2VectorQuantizer
from fsq_repro.quantizers.vq import VectorQuantizer

QUANTIZERS: dict[str, type[nn.Module]] = {
    "fsq": FSQ,
    "vq": VectorQuantizer,
    "l2_vq": L2VectorQuantizer,
    "ema_vq": EmaVectorQuantizer,
    "ema_restart": EmaRestartQuantizer,
}


def make_quantizer(name: str, **fields: Any) -> nn.Module:
    """The quantizer of this name with these attributes.

    Raises ValueError: no such quantizer, or a field that it does not have; values are the quantizer's own to check.
    """
    if name not in QUANTIZERS:
        raise ValueError(f"quantizer.name = {name!r} is not one of {', '.join(QUANTIZERS)}")
    allowed = {f.name for f in dataclasses.fields(QUANTIZERS[name])} - {"parent", "name"}
    if not fields.keys() <= allowed:
        raise ValueError(
            f"quantizer.{sorted(fields.keys() - allowed)[0]} is not a field of quantizer {name!r}, which has "
            f"{', '.join(sorted(allowed))}; choose the quantizer in the config's argument, quantizer=..."
        )
    return QUANTIZERS[name](**fields)


def quantizer_label(name: str, **fields: Any) -> str:
    """Name of a quantizer in records and tables: an ablation gets its own, e.g. "vq_no_entropy"."""
    ablation = make_quantizer(name, **fields).ablation
    return f"{name}_{ablation}" if ablation else name
