"""The quantizers by the names that configs give them. A new one is a file of its own and a line here."""

import dataclasses
from typing import Any

from flax import linen as nn

from fsq_repro.quantizers.bsq import BSQ
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.fsp import FSP
from fsq_repro.quantizers.fsq import FSQ
from fsq_repro.quantizers.lfq import LFQ
from fsq_repro.quantizers.qlae import QLAE
from fsq_repro.quantizers.residual_fsq import ResidualFSQ
from fsq_repro.quantizers.vq import VectorQuantizer

QUANTIZERS: dict[str, Any] = {  # Linen modules under the contract of base.py
    "fsq": FSQ,
    "vq": VectorQuantizer,
    "ema_vq": EmaVectorQuantizer,
    "lfq": LFQ,
    "bsq": BSQ,
    "qlae": QLAE,
    "residual_fsq": ResidualFSQ,
    "fsp": FSP,
}


def make_quantizer(name: str, **fields: Any) -> nn.Module:
    """The quantizer of this name with these attributes.

    Raises ValueError: no such quantizer, or a field that it does not have; values are the quantizer's own to check.
    """
    _check_name("quantizer.name", name)
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


def suggest(*, codebook_size: int, kind: str) -> dict[str, Any]:
    """Fields for `make_quantizer` that give a quantizer of this kind about `codebook_size` codes.

    They are the published ones where there are any; all others keep their defaults.

    >>> suggest(codebook_size=1024, kind="fsq"), suggest(codebook_size=1024, kind="lfq")
    ({'levels': (8, 5, 5, 5)}, {'num_bits': 10})

    Raises ValueError: no such kind, or it has nothing to suggest for this size.
    """
    _check_name("kind", kind)
    if not isinstance(codebook_size, int) or not 2 <= codebook_size < 2**31:
        raise ValueError(f"codebook_size is {codebook_size!r}, but must be an integer in 2..2^31 - 1.")
    fields = QUANTIZERS[kind].suggest(codebook_size)
    _ = make_quantizer(kind, **fields).num_channels  # raises where the kind goes less far
    return fields


def _check_name(field: str, name: str) -> None:
    if name not in QUANTIZERS:
        raise ValueError(f"{field} = {name!r} is not one of {', '.join(QUANTIZERS)}")
