"""MaskGIT on ImageNet 256: stage II on the 16x16 tokens of `imagenet256_autoencoder`.

Reproduces: Fig. 4 of arXiv 2309.15505 (table, precision-recall curve, FID over the guidance weight). Published, by the
ADM suite: FID 4.509, precision 0.860, recall 0.465 (VQ, guidance 0.1); 4.534, 0.864, 0.453 (FSQ, guidance 0.2).
Hardware: the paper gives none. 2.5M steps of batch 256 (section A.4.3).

    python scripts/train.py --config=configs/imagenet256_maskgit.py:quantizer=fsq \
        --workdir=runs/fsq_256_maskgit --config.stage1=runs/fsq_256

Argument: as `tradeoff_maskgit`.
"""

from ml_collections import ConfigDict

from configs import tradeoff_maskgit


def get_config(arg: str = "") -> ConfigDict:
    c = tradeoff_maskgit.get_config(arg)
    c.experiment = "imagenet256_maskgit"
    # "Best" of Fig. 4: 0.2 for FSQ, 0.1 for VQ; the curves go from 0 to about 0.25.
    c.sampler.guidance_weight = 0.2 if c.quantizer.name == "fsq" else 0.1
    c.eval.guidance_weights = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
    if c.scale == "paper":
        c.data.resolution = 256
        c.steps = 2_500_000  # A.4.3; maskgit's config has 2M
    if c.scale == "smoke":
        c.eval.guidance_weights = (0.0, 0.2)
    return c
