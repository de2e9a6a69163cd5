"""The quantizers as `flax.nnx` modules, each by its Linen module's name: `from fsq_repro.quantizers.nnx import FSQ`.

Thin: each holds its Linen module and that one's variables, so all numbers are those of the Linen module.
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen, nnx

from fsq_repro.quantizers.base import Quantized
from fsq_repro.quantizers.registry import QUANTIZERS


class QuantizerState(nnx.Variable):
    """What a quantizer keeps that has no gradient, such as running averages: the Linen collection `quantizer`."""


class Quantizer(nnx.Module):
    """A quantizer with the fields of its Linen module.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from fsq_repro.quantizers.nnx import FSQ, EmaVectorQuantizer
    >>> quantizer = FSQ((8, 5, 5, 5))
    >>> quantizer(jnp.zeros((2, 16, 4)), train=True).codes.shape, quantizer.codebook_size
    ((2, 16, 4), 1000)
    >>> EmaVectorQuantizer(codebook_size=16, embedding_dim=4, rngs=nnx.Rngs(0)).state["counts"].shape
    (16,)

    Attributes:
      params: `nnx.Param` by the names of the Linen parameters.
      state: `QuantizerState` by the names of the Linen collection `quantizer`, brought up to date where `train`.
      linen_module: what is wrapped.
    """

    linen_class: ClassVar[type[linen.Module]]

    def __init__(self, *args: Any, rngs: nnx.Rngs | None = None, **fields: Any) -> None:
        """Takes the Linen module's fields; `rngs` where it has random parameters or state or draws in training.

        The streams are `params` and `quantizer`, or the default one.
        """
        self.linen_module: Any = self.linen_class(*args, **fields)
        self.rngs = None if rngs is None else rngs.fork()
        keys = {} if rngs is None else {"params": rngs.params(), "quantizer": rngs.quantizer()}
        variables = self.linen_module.init(keys, jnp.zeros((1, self.linen_module.num_channels)), train=False)
        self.params = _variables(variables.get("params", {}), nnx.Param)
        self.state = _variables(variables.get("quantizer", {}), QuantizerState)

    @property
    def num_channels(self) -> int:
        return self.linen_module.num_channels

    @property
    def codebook_size(self) -> int:
        return self.linen_module.codebook_size

    @property
    def levels(self) -> tuple[int, ...] | None:
        return self.linen_module.levels

    def __call__(self, z: jax.Array, *, train: bool) -> Quantized:
        """z float (..., num_channels) -> `Quantized`."""
        keys = {"quantizer": self.rngs.quantizer()} if train and self.rngs is not None else {}
        mutable = ["quantizer"] if train else []
        quantized, updated = self.linen_module.apply(self._arrays(), z, train=train, mutable=mutable, rngs=keys)
        _assign(self.state, updated.get("quantizer", {}))
        return quantized

    def indices_to_codes(self, indices: jax.Array) -> jax.Array:
        """Integer (...) -> float32 (..., num_channels)."""
        return self.linen_module.apply(self._arrays(), indices, method="indices_to_codes")

    def codes_to_indices(self, codes: jax.Array) -> jax.Array:
        """Float (..., num_channels) -> int32 (...)."""
        return self.linen_module.apply(self._arrays(), codes, method="codes_to_indices")

    def _arrays(self) -> dict[str, Any]:
        return {"params": _values(self.params), "quantizer": _values(self.state)}


def _variables(tree: Mapping[str, Any], kind: type[nnx.Variable]) -> nnx.Dict:
    return nnx.Dict({k: _variables(v, kind) if isinstance(v, Mapping) else kind(v) for k, v in tree.items()})


def _values(tree: nnx.Dict) -> dict[str, Any]:
    return {k: _values(v) if isinstance(v, nnx.Dict) else v[...] for k, v in tree.items()}


def _assign(tree: nnx.Dict, values: Mapping[str, Any]) -> None:
    for k, value in values.items():
        if isinstance(value, Mapping):
            _assign(tree[k], value)
        else:
            tree[k][...] = value


@functools.cache
def _wrapped(linen_class: type[linen.Module]) -> type[Quantizer]:
    doc = f"`fsq_repro.quantizers.{linen_class.__name__}` as an NNX module, see `Quantizer` here."
    members = {"linen_class": linen_class, "__doc__": doc, "__module__": __name__}
    return type(linen_class.__name__, (Quantizer,), members)


def __getattr__(name: str) -> Any:
    for linen_class in QUANTIZERS.values():
        if linen_class.__name__ == name:
            return _wrapped(linen_class)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
