"""Samplers of masked tokens by the names that configs give them. A new one is a file of its own and a line here."""

import dataclasses
from typing import Any

from fsq_repro.sampling.parallel_decoding import ParallelSampler

Sampler = ParallelSampler  # and whatever is called and tells its protocol as that does
SAMPLERS: dict[str, type[Sampler]] = {"parallel": ParallelSampler}


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
