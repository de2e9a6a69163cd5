"""What "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505 v2, ICLR 2024) reports on what we measure.

The points of Fig. 3 and Fig. 10 are published as curves without numbers. This file holds what the text and the axes
say, each with its source, and nothing read off a curve by us. All of it is ImageNet at 128 x 128: 50,000 validation
images against training-set statistics, FID of the ADM suite, 100 epochs (section 4.2).
"""

import dataclasses

PROTOCOL = (
    "Paper: ImageNet 128 x 128, FID (ADM suite) of 50,000 validation reconstructions against training-set statistics, "
    "usage over the validation set (section 4.2). Its values are not comparable with distances of other feature "
    "networks or other data."
)


@dataclasses.dataclass(frozen=True)
class Statement:
    """One published statement on codebooks of min_bits <= target bits <= max_bits of one quantizer."""

    quantizer: str
    min_bits: float
    max_bits: float
    text: str
    source: str


TRADEOFF = (
    Statement("vq", 4, 8, "FID slightly better than FSQ's", "section 5.1, Fig. 3a"),
    Statement("fsq", 4, 8, "FID slightly worse than VQ's", "section 5.1, Fig. 3a"),
    Statement(
        "fsq", 10, 10, "FID about 8", "Fig. 3a, read by eye by a reader: github.com/duchenzhuang/FSQ-pytorch issue 4"
    ),
    Statement("vq", 11, 11, "FID at its minimum, usage starts to fall", "section 5.1, Fig. 3a and 3c"),
    Statement("vq", 11.5, 16, "FID worsens; usage < 50%, never more than 2^10 codes", "section 5.1, Fig. 3a and 3c"),
    Statement("fsq", 12, 12, "FID still improving", "section 5.1, Fig. 3a"),
    Statement("fsq", 14, 14, "FID still improving; almost all codes used", "section 5.1, Fig. 3a and 3c"),
    Statement("fsq", 16, 16, "best FID; more than 2^15 codes used", "section 5.1, Fig. 3a and 3c"),
)

LEVELS_RULE = "At least 5 levels a dimension; a smallest level below 5 is clearly worse in sampling FID."
LEVELS_SOURCE = "section 3.2 and appendix A.4.1, Fig. 10"


def statements(quantizer: str, target_bits: float) -> list[Statement]:
    """What the paper says on a quantizer's row of the trade-off study; empty if nothing."""
    return [s for s in TRADEOFF if s.quantizer == quantizer and s.min_bits <= target_bits <= s.max_bits]
