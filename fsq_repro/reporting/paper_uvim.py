"""Table 2 of "Finite Scalar Quantization" (arXiv 2309.15505 v2): UViM with FSQ and VQ, and what it is set beside.

Values as printed, but for the deviations of PQ (see `PQ_NOTE`). "theirs" are the paper's own runs, mean and deviation
over three trainings of stage II; "GitHub" is big_vision's UViM README (its stage-I scores too); "UViM paper" is
Kolesnikov et al., arXiv 2205.10337.
"""

import dataclasses

THEIRS, GITHUB, UVIM_PAPER, LITERATURE = "theirs", "GitHub", "UViM paper", "literature"
HOLDOUT = "UViM paper, training holdout"
FSQ_CODES, VQ_CODES = 4375, 4096  # [7, 5, 5, 5, 5], section 4.4


@dataclasses.dataclass(frozen=True)
class Published:
    """One published row: the metric of stage II and its deviation, the stage-I score, and usage as a share."""

    model: str
    source: str
    score: float
    std: float | None = None
    stage1: float | None = None
    usage: float | None = None
    codebook_size: int | None = None


TABLE2 = {
    "depth": (
        Published("UViM (FSQ)", THEIRS, 0.473, 0.012, usage=0.99, codebook_size=FSQ_CODES),
        Published("UViM (VQ)", THEIRS, 0.468, 0.012, usage=0.99, codebook_size=VQ_CODES),
        Published("UViM (VQ, no splitting)", THEIRS, 0.490, 0.0037, usage=0.0078, codebook_size=VQ_CODES),
        Published("UViM (VQ)", GITHUB, 0.463, stage1=0.155, codebook_size=VQ_CODES),
        Published("UViM (VQ)", UVIM_PAPER, 0.467, 0.009, codebook_size=VQ_CODES),
        Published("UViM (VQ, not autoregressive)", UVIM_PAPER, 0.55, codebook_size=VQ_CODES),
        Published("DenseDepth", LITERATURE, 0.465),
    ),
    "panoptic": (
        Published("UViM (FSQ)", THEIRS, 43.2, 0.14, usage=1.0, codebook_size=FSQ_CODES),
        Published("UViM (VQ)", THEIRS, 43.4, 0.08, usage=1.0, codebook_size=VQ_CODES),
        Published("UViM (FSQ, no context)", THEIRS, 40.2, 0.19, usage=0.99, codebook_size=FSQ_CODES),
        Published("UViM (VQ, no context)", THEIRS, 39.0, 0.23, usage=0.99, codebook_size=VQ_CODES),
        Published("UViM (VQ)", GITHUB, 43.1, stage1=75.8, codebook_size=VQ_CODES),
        Published("UViM (VQ)", "GitHub, single host", 39.4, stage1=67.8, codebook_size=VQ_CODES),
        Published("UViM (VQ), 1280 px input", UVIM_PAPER, 45.6, 0.1, codebook_size=VQ_CODES),
        Published("UViM (VQ)", HOLDOUT, 43.7, stage1=75.7, codebook_size=VQ_CODES),
        Published("UViM (VQ, no context)", HOLDOUT, 39.1, stage1=66.1, codebook_size=VQ_CODES),
        Published("UViM (VQ, no code dropout)", HOLDOUT, 42.2, stage1=85.8, codebook_size=VQ_CODES),
        Published("UViM (VQ, stage II from scratch)", HOLDOUT, 39.8, stage1=75.7, codebook_size=VQ_CODES),
        Published("UViM (VQ, not autoregressive)", HOLDOUT, 33.3, codebook_size=VQ_CODES),
        Published("DETR-R101", LITERATURE, 45.1),
    ),
    "colorization": (
        Published("UViM (FSQ)", THEIRS, 17.55, 0.057, usage=1.0, codebook_size=FSQ_CODES),
        Published("UViM (VQ)", THEIRS, 16.90, 0.056, usage=1.0, codebook_size=VQ_CODES),
        Published("UViM (VQ)", GITHUB, 16.99, 0.057, stage1=15.59, codebook_size=VQ_CODES),
        Published("UViM (VQ)", UVIM_PAPER, 16.17, 0.04, codebook_size=VQ_CODES),
        Published("ColTran", LITERATURE, 19.37),
    ),
}  # task -> its part of the table
MEASURED_ON = {
    "depth": "NYU Depth v2, 654 validation images, crop from row 54",
    "panoptic": "COCO panoptic 2017, 512 px",
    "colorization": "ImageNet, 5,000 validation images against 5,000 others, FID of Inception",
}
PQ_NOTE = "The paper prints the deviations of PQ as fractions (0.0008 beside 43.4); here they are in the unit of PQ."
