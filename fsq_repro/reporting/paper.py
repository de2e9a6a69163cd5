"""What "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505 v2, ICLR 2024) reports on what we measure.

The points of Fig. 3, Fig. 4 (bottom) and Fig. 10 are published as curves without numbers. This file holds what the
text, the table of Fig. 4 and the axes say, each with its source, and nothing read off a curve by us.
"""

import dataclasses

NOT_COMPARABLE = "Its values are not comparable with distances of other feature networks or other data."
PROTOCOL = (
    "Paper: ImageNet 128 x 128, FID (ADM suite) of 50,000 validation reconstructions against training-set statistics, "
    f"usage over the validation set (section 4.2). {NOT_COMPARABLE}"
)


@dataclasses.dataclass(frozen=True)
class Statement:
    """One published statement on codebooks of min_bits <= target bits <= max_bits of one quantizer."""

    quantizer: str
    min_bits: float
    max_bits: float
    text: str
    source: str


READ_BY_EYE = "Fig. 3a, read by eye by a reader: github.com/duchenzhuang/FSQ-pytorch issue 4"
TRADEOFF = (
    Statement("vq", 4, 8, "FID slightly better than FSQ's", "section 5.1, Fig. 3a"),
    Statement("fsq", 4, 8, "FID slightly worse than VQ's", "section 5.1, Fig. 3a"),
    Statement("fsq", 10, 10, "FID about 8", READ_BY_EYE),
    Statement("vq", 11, 11, "FID at its minimum, usage starts to fall", "section 5.1, Fig. 3a and 3c"),
    Statement("vq", 11.5, 16, "FID worsens; usage < 50%, never more than 2^10 codes", "section 5.1, Fig. 3a and 3c"),
    Statement("fsq", 12, 12, "FID still improving", "section 5.1, Fig. 3a"),
    Statement("fsq", 14, 14, "FID still improving; almost all codes used", "section 5.1, Fig. 3a and 3c"),
    Statement("fsq", 16, 16, "best FID; more than 2^15 codes used", "section 5.1, Fig. 3a and 3c"),
)

# Masked transformers (200 epochs) on tokens of autoencoders trained for 100 epochs.
SAMPLING = (
    Statement("fsq", 11, 11, "FID ahead of VQ's", "section 5.1, Fig. 3b"),
    Statement("fsq", 11.5, 16, "FID saturates, ahead of VQ's", "section 5.1, Fig. 3b"),
    Statement("vq", 11, 11, "FID behind FSQ's", "section 5.1, Fig. 3b"),
    Statement("vq", 11.5, 16, "FID worsens", "section 5.1, Fig. 3b"),
)
COMPRESSION = (
    Statement("fsq", 4, 16, "cost rises with the codebook, slightly above VQ's", "section 5.1, Fig. 3d"),
    Statement("vq", 4, 11, "cost slightly below FSQ's", "section 5.1, Fig. 3d"),
    Statement("vq", 11.5, 16, "cost drops as usage collapses", "section 5.1, Fig. 3d"),
)
SAMPLING_PROTOCOL = (
    "Paper: ImageNet 128 x 128, FID (ADM suite) of 50,000 class-conditional samples against training-set statistics, "
    f"no guidance mentioned (section 4.2). {NOT_COMPARABLE}"
)
COMPRESSION_PROTOCOL = (
    "Paper: bits per token of a masked transformer under M2T's deterministic schedule; its numbers of groups and its "
    "exponent are not given (section 4.2)."
)


@dataclasses.dataclass(frozen=True)
class Generator:
    """One row of the table in Fig. 4: ImageNet 256 x 256, ADM suite; `quantizer` is None where it is no run of ours."""

    model: str
    source: str
    quantizer: str | None
    guidance_weight: float | None
    fid: float
    precision: float
    recall: float
    usage: float | None


FIG4 = (
    Generator("MaskGIT (VQ)", "theirs", "vq", 0.1, 4.509, 0.860, 0.465, 0.81),
    Generator("MaskGIT (FSQ)", "theirs", "fsq", 0.2, 4.534, 0.864, 0.453, 1.0),
    Generator("MaskGIT (VQ)", "GitHub checkpoint", None, None, 4.916, 0.836, 0.489, None),
    Generator("ADM, guided", "Dhariwal & Nichol", None, 1.5, 4.59, 0.83, 0.52, None),
)
FIG4_BITS = 10  # FSQ [8,5,5,5] and VQ with 1,024 codes
FIG4_PROTOCOL = (
    "Paper: ImageNet 256 x 256, FID, precision and recall of the ADM suite (Inception) against training-set "
    "statistics; the best guidance weight of each model (Fig. 4, section 4.3); ADM's weight is a classifier's scale."
)

LEVELS_RULE = "At least 5 levels per dimension; a smallest level below 5 is clearly worse in sampling FID."
LEVELS_SOURCE = "section 3.2 and appendix A.4.1, Fig. 10"


def statements(quantizer: str, target_bits: float, study: tuple[Statement, ...] = TRADEOFF) -> list[Statement]:
    """What the paper says on a quantizer's row of the trade-off study; empty if nothing."""
    return [s for s in study if s.quantizer == quantizer and s.min_bits <= target_bits <= s.max_bits]
