"""What quantizers share that give each channel a number of values of its own, chosen without bounds of FSQ's kind."""

import math
from typing import Any

from flax import linen as nn

from fsq_repro.quantizers.digits import check_levels
from fsq_repro.quantizers.fsq import suggest_levels


class ScalarLevels(nn.Module):
    """d channels, of which channel i has `levels[i]` values; one index for all, the first channel fastest.

    Attributes:
      levels: integers in 2..1000, one per channel.
    """

    levels: tuple[int, ...]

    ablation = ""

    @property
    def num_channels(self) -> int:
        return len(check_levels(self.levels))

    @property
    def codebook_size(self) -> int:
        return math.prod(check_levels(self.levels))

    @classmethod
    def suggest(cls, codebook_size: int) -> dict[str, Any]:
        """FSQ's levels (see `suggest_levels`), for a comparison at the same grid."""
        return {"levels": suggest_levels(codebook_size)}
