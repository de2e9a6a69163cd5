"""Stage I of MaskGIT on ImageNet 256: 16x16 tokens, FSQ [8,5,5,5] or VQ-1024.

Reproduces: the autoencoders behind Fig. 4 of arXiv 2309.15505. Published: usage 100% (FSQ) and 81% (VQ, K = 1024 with
the entropy loss); MaskGIT's own tokenizer has reconstruction FID 2.28 (its README).
Hardware: the paper gives none. 1M steps of batch 512 at 256 px (section A.4.3).

    python scripts/train.py --config=configs/imagenet256_autoencoder.py:quantizer=fsq --workdir=runs/fsq_256

Argument: as `tradeoff_autoencoder`; bits=10, or another size of Table 1.
"""

from ml_collections import ConfigDict

from configs import tradeoff_autoencoder


def get_config(arg: str = "") -> ConfigDict:
    # The trade-off study copies this experiment's hyper-parameters (A.4.1), so here only what differs is set.
    c = tradeoff_autoencoder.get_config(arg)
    c.experiment = "imagenet256_autoencoder"
    if c.scale == "paper":
        c.data.resolution = 256
        c.batch_size = 512  # A.4.3; maskgit/configs/vqgan_config.py has 256 for 1M steps
        c.steps = 1_000_000
    return c
