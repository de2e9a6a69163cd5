"""What the test split's tokens cost under a stage-II run, and their codebook usage."""

import functools

import jax
import numpy as np

from fsq_repro.data.choice import CHOICE, chosen_indices
from fsq_repro.data.tokens import TokenSource
from fsq_repro.inference.image_generator import ImageGenerator
from fsq_repro.metrics.lossless_coder import LosslessCoder
from fsq_repro.metrics.table import MetricKey
from fsq_repro.metrics.usage import CodebookUsage
from fsq_repro.runtime.run_dir import Measured, Measurements


def compression_metrics(
    image_generator: ImageGenerator, tokens: TokenSource, coder_images: int, protocol: dict
) -> Measurements:
    """Bits per token of the test split, and of a real stream of some of its images, decoded back.

    Raises:
      ValueError: the weights give a cost that is not finite, or the stream does not decode to its tokens.
    """
    generator, batch_size = image_generator.generator, image_generator.batch_size
    tokens_NxS, labels_N = np.asarray(tokens.tokens_NxVxS[:, 0]), np.asarray(tokens.labels_N)
    usage = CodebookUsage(generator.model.codebook_size)
    usage.update(tokens_NxS)
    cost = jax.jit(generator.token_bits)
    parts = []
    for start in range(0, len(tokens_NxS), batch_size):
        rows = np.arange(start, start + batch_size).clip(max=len(tokens_NxS) - 1)  # the last batch is filled up
        bits_BxS = np.asarray(cost(image_generator.params, tokens_NxS[rows], labels_N[rows]), np.float64)
        parts.append(bits_BxS[: len(tokens_NxS) - start])
    bits_NxS = np.concatenate(parts)
    if not np.isfinite(bits_NxS).all():
        raise ValueError("a token's cost in bits is not finite; the weights of this checkpoint are broken")

    some = chosen_indices(len(tokens_NxS), coder_images)
    logits_fn = functools.partial(jax.jit(generator.logits), image_generator.params)
    coder = LosslessCoder(logits_fn, generator.groups, generator.model.mask_id, batch_size)
    words = coder.encode(tokens_NxS[some], labels_N[some])
    coder.decode(words, labels_N[some], tokens_NxS.shape[1])

    of_split = protocol | {"split": "test", "images": len(tokens_NxS)}
    schedule = generator.compression_protocol()
    of_coder = protocol | {"split": "test", "images": len(some), "images_chosen": CHOICE} | schedule
    measured = {
        "compression_bits": Measured(float(bits_NxS.mean()), of_split | schedule),
        "coder_bits": Measured(32 * len(words) / tokens_NxS[some].size, of_coder),
        "coder_expected_bits": Measured(float(bits_NxS[some].mean()), of_coder),
    }
    measured |= {name: Measured(value, of_split) for name, value in usage.compute().items()}
    return {MetricKey(name): m for name, m in measured.items()}
