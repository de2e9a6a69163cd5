"""Samplers of masked tokens by the names that configs give them. A new one is a file of its own and a line here."""

import dataclasses
from typing import Any, Protocol

from jax import Array

from fsq_repro.sampling.guidance import LogitsFn
from fsq_repro.sampling.parallel_decoding import ParallelSampler


class Sampler(Protocol):
    """A frozen dataclass with the fields of `config.sampler` but its name and the guidance weight."""

    def __call__(self, logits_fn: LogitsFn, keys_B: Array, labels_B: Array, num_tokens: int, mask_id: int) -> Array:
        """Tokens int32 (B, num_tokens); arguments as of `parallel_decode`."""

    def protocol(self) -> dict[str, Any]:
        """What a record says of the samples."""


SAMPLERS: dict[str, Any] = {"parallel": ParallelSampler}


def make_sampler(name: str, **fields: Any) -> Sampler:
    """The sampler of this name with these attributes.

    Raises:
      ValueError: no such sampler, or fields that are not its own; values are refused where it is first called.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler.name = {name!r} is not one of {', '.join(SAMPLERS)}")
    wanted = sorted(f.name for f in dataclasses.fields(SAMPLERS[name]))
    if sorted(fields) != wanted:
        raise ValueError(
            f"sampler.name = {name!r} needs the fields {', '.join(wanted)} of sampler, but the config has "
            f"{', '.join(sorted(fields))}"
        )
    return SAMPLERS[name](**fields)
