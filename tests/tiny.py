"""The smallest stage-I set-up that has every part: for tests of trainer, loop, scripts and resume."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from configs import tradeoff_autoencoder


def tiny_config(arg: str = "quantizer=fsq,bits=8", *, gan: bool = False) -> ConfigDict:
    """One residual block at 32 channels on 16 px images, 4x4 tokens."""
    c = tradeoff_autoencoder.get_config(f"{arg},scale=smoke")
    c.steps, c.batch_size = 8, 8
    c.log_every, c.eval_every, c.checkpoint_every = 2, 100, 4
    c.model.channel_multipliers = (1,)
    c.data.resolution = 16
    c.loss.perceptual = 0.0
    c.loss.gan = 0.1 if gan else 0.0
    c.eval.batch_size = 8
    if c.quantizer.name != "fsq":
        c.quantizer.embedding_dim = 8
    return c


@dataclasses.dataclass
class NoiseSource:
    """Smooth random images, made from the index."""

    size: int = 64
    resolution: int = 16
    name: str = "noise"
    split: str = "train"
    num_classes: int = 2
    class_names: tuple[str, ...] = ("even", "odd")
    fingerprint: str = ""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((self.resolution // 4, self.resolution // 4, 1), np.uint8))
        return {"image": image, "label": np.int32(index % 2)}
