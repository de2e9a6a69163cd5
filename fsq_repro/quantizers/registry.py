"""The quantizers by the names that configs give them. A new one is a file of its own and a line here."""

import dataclasses
from typing import Any

from flax import linen as nn

from fsq_repro.quantizers.alternated_vq import AlternatedVectorQuantizer
from fsq_repro.quantizers.bsq import BSQ
from fsq_repro.quantizers.diveq import DiVeQ
from fsq_repro.quantizers.ema_restart import EmaRestartQuantizer
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.fsp import FSP
from fsq_repro.quantizers.fsq import FSQ
from fsq_repro.quantizers.ibq import IndexBackpropagationQuantizer
from fsq_repro.quantizers.l2_vq import L2VectorQuantizer
from fsq_repro.quantizers.lfq import LFQ
from fsq_repro.quantizers.product import ProductQuantizer
from fsq_repro.quantizers.qlae import QLAE
from fsq_repro.quantizers.residual_fsq import ResidualFSQ
from fsq_repro.quantizers.simvq import SimVectorQuantizer
from fsq_repro.quantizers.vq import VectorQuantizer

QUANTIZERS: dict[str, Any] = {  # Linen modules under the contract of base.py
    "fsq": FSQ,
    "lfq": LFQ,
    "bsq": BSQ,
    "qlae": QLAE,
    "residual_fsq": ResidualFSQ,
    "fsp": FSP,
    "vq": VectorQuantizer,
    "l2_vq": L2VectorQuantizer,
    "simvq": SimVectorQuantizer,
    "ibq": IndexBackpropagationQuantizer,
    "diveq": DiVeQ,
    "alternated_vq": AlternatedVectorQuantizer,
    "product": ProductQuantizer,
    "ema_vq": EmaVectorQuantizer,
    "ema_restart": EmaRestartQuantizer,
}


def make_quantizer(name: str, **fields: Any) -> nn.Module:
    """The quantizer of this name with these attributes; one that is made of others has a mapping with their name.

    >>> make_quantizer("product", groups=2, quantizer={"name": "fsq", "levels": (8, 5)}).codebook_size
    1600

    Raises ValueError: no such quantizer, a field that it does not have, or one that it needs and does not get; values
    are the quantizer's own to check.
    """
    fields = {key: make_quantizer(**value) if _is_nested(value) else value for key, value in fields.items()}
    _check_name("quantizer.name", name)
    allowed = {f.name for f in dataclasses.fields(QUANTIZERS[name])} - {"parent", "name"}
    if not fields.keys() <= allowed:
        raise ValueError(
            f"quantizer.{sorted(fields.keys() - allowed)[0]} is not a field of quantizer {name!r}, which has "
            f"{', '.join(sorted(allowed))}; choose the quantizer in the config's argument, quantizer=..."
        )
    required = [f.name for f in dataclasses.fields(QUANTIZERS[name]) if f.default is f.default_factory]
    if missing := [field for field in required if field not in fields]:
        raise ValueError(f"quantizer.{missing[0]} is missing, but quantizer {name!r} needs {', '.join(required)}")
    return QUANTIZERS[name](**fields)


def quantizer_label(name: str, **fields: Any) -> str:
    """Name of a quantizer in records and tables: an ablation gets its own, e.g. "vq_no_entropy".

    One that is made of others is called after them as well, e.g. "product_vq_no_entropy".
    """
    parts = [quantizer_label(**value) for value in fields.values() if _is_nested(value)]
    return "_".join(part for part in (name, *(parts or [make_quantizer(name, **fields).ablation])) if part)


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


def _is_nested(value: Any) -> bool:
    """Whether a field is itself a quantizer's fields: a dict or a ConfigDict."""
    return hasattr(value, "keys")
