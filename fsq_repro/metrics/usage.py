"""Codebook usage over a whole split: which codes occur, how evenly, and what a uniform source would have shown.

The paper's usage is the share of codes used at least once over the validation set (section 4.2). It depends on how many
tokens were counted, so it never travels without that count and the uniform source's usage (field lesson: usage from one
batch of 4,096 tokens cannot pass 6% at 2^16 codes, however good the codebook).
"""

import math
from collections.abc import Sequence

import numpy as np


class CodebookUsage:
    """`counts_K`, int64 (K,): how often each of K = `codebook_size` codes was seen."""

    def __init__(self, codebook_size: int) -> None:
        if codebook_size < 2:
            raise ValueError(f"codebook_size must be at least 2, got {codebook_size}.")
        self.codebook_size = codebook_size
        self.counts_K = np.zeros(codebook_size, dtype=np.int64)

    def update(self, indices: np.ndarray) -> None:
        """Counts indices of any shape and integer dtype.

        Raises ValueError for one outside 0..K-1 (never clipped: it would hide a broken quantizer).
        """
        indices = np.asarray(indices)
        if indices.size == 0:
            return
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"indices must lie in 0..{self.codebook_size - 1}, got values from {low} to {high}.")
        self.counts_K += np.bincount(indices.ravel(), minlength=self.codebook_size)

    def compute(self) -> dict[str, float | int]:
        """Metrics of everything counted.

        Returns:
          tokens: number of indices seen.
          codes_used: codes seen at least once.
          usage: codes_used / K.
          entropy_bits: entropy of the empirical code distribution, at most log2 K.
          perplexity: 2^entropy_bits.
          uniform_usage: expected usage of `tokens` uniform independent draws, 1 - (1 - 1/K)^tokens.
        """
        tokens = int(self.counts_K.sum())
        codes_used = int(np.count_nonzero(self.counts_K))
        p = self.counts_K[self.counts_K > 0] / tokens
        entropy_bits = float(-(p * np.log2(p)).sum()) + 0.0  # + 0.0: one code gives 0, not -0
        return {
            "tokens": tokens,
            "codes_used": codes_used,
            "usage": codes_used / self.codebook_size,
            "entropy_bits": entropy_bits,
            "perplexity": 2.0**entropy_bits,
            "uniform_usage": -math.expm1(tokens * math.log1p(-1.0 / self.codebook_size)),
        }

    def level_facts(self, levels: Sequence[int]) -> dict[str, list]:
        """For FSQ: how its dimensions are used.

        An index is sum_i digit_i * prod_{j<i} levels_j (the first dimension varies fastest; official notebook
        google-research `fsq/fsq.ipynb`), so the counts are a d-dimensional table in column-major order.

        Returns:
          level_histograms: per dimension, how many tokens took each level, lowest level first.
          saturation: per dimension, the share of tokens on the two outermost levels: how much of tanh's range is used
            up. An even spread gives 2 / levels[i].
        """
        table = self.counts_K.reshape(tuple(levels), order="F")
        dimensions = range(len(levels))
        histograms = [table.sum(axis=tuple(j for j in dimensions if j != i)) for i in dimensions]
        return {
            "level_histograms": [h.tolist() for h in histograms],
            "saturation": [float((h[0] + h[-1]) / h.sum()) for h in histograms],
        }
