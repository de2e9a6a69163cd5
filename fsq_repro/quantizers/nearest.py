"""Nearest codeword and MaskGIT's entropy term, in chunks of tokens.

A distance matrix of 131,072 tokens and 2^16 codes has 32 GiB in float32. Here nothing of size tokens x codebook lives
longer than one chunk, forward or backward; a batch that fits one chunk is computed in one piece.
"""

import jax
import jax.numpy as jnp

CHUNK_ELEMENTS = 2**25  # of a distance matrix: 128 MiB in float32


def squared_distances(x_NxD: jax.Array, codebook_KxD: jax.Array) -> jax.Array:
    """||x||^2 - 2 x.e + ||e||^2, float32 (N, K); products in full float32 on every device, not tf32 or bfloat16."""
    x2_Nx1 = jnp.sum(jnp.square(x_NxD), axis=1, keepdims=True)
    e2_1xK = jnp.sum(jnp.square(codebook_KxD), axis=1)[None]
    dots_NxK = jnp.matmul(x_NxD, codebook_KxD.T, precision=jax.lax.Precision.HIGHEST)
    return x2_Nx1 - 2 * dots_NxK + e2_1xK


def nearest_codes(x_NxD: jax.Array, codebook_KxD: jax.Array) -> jax.Array:
    """Index of the nearest codeword by squared Euclidean distance, int32 (N,); of equal distances the lowest index."""
    x_NxD, codebook_KxD = jax.lax.stop_gradient((x_NxD, codebook_KxD))

    def one_chunk(x_CxD: jax.Array) -> jax.Array:
        return jnp.argmin(squared_distances(x_CxD, codebook_KxD), axis=1).astype(jnp.int32)

    if (chunks := _num_chunks(len(x_NxD), len(codebook_KxD))) == 1:
        return one_chunk(x_NxD)
    return jax.lax.map(one_chunk, _split(x_NxD, chunks)).swapaxes(0, 1).reshape(-1)[: len(x_NxD)]


def entropy_loss(x_NxD: jax.Array, codebook_KxD: jax.Array, temperature: float) -> jax.Array:
    """MaskGIT's entropy term (maskgit/libml/losses.py, type "softmax"): E[H(p)] - H(E[p]), a float32 scalar.

    p = softmax(-distances / temperature): confident for each token, even over all tokens of the global batch. The
    published function averages over the tokens of one device; the global mean gives the same on any number of them.
    """
    N, K = len(x_NxD), len(codebook_KxD)

    def one_chunk(x_CxD: jax.Array, codebook_KxD: jax.Array, mask_C: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The published code adds 1e-5 to the logits of the logarithm, which a softmax does not see.
        log_p_CxK = jax.nn.log_softmax(-squared_distances(x_CxD, codebook_KxD) / temperature)
        p_CxK = jnp.exp(log_p_CxK)
        entropy_C = -jnp.sum(p_CxK * log_p_CxK, axis=1)
        return jnp.sum(entropy_C * mask_C), mask_C @ p_CxK

    chunks = _num_chunks(N, K)
    if chunks == 1:
        entropy_sum, p_sum_K = one_chunk(x_NxD, codebook_KxD, jnp.ones(N, jnp.float32))
    else:
        # Recomputed in the backward pass, so that no chunk's matrices are kept for it.
        recomputed = jax.checkpoint(one_chunk)
        parts = _split(x_NxD, chunks), _split(jnp.ones(N, jnp.float32), chunks)  # what is padded gets the weight 0
        entropies, p_sums = jax.lax.map(lambda part: recomputed(part[0], codebook_KxD, part[1]), parts)
        entropy_sum, p_sum_K = jnp.sum(entropies), jnp.sum(p_sums, axis=0)
    mean_p_K = p_sum_K / N
    return entropy_sum / N + jnp.sum(mean_p_K * jnp.log(mean_p_K + 1e-5))


def _num_chunks(N: int, K: int) -> int:
    return -(-N // max(1, CHUNK_ELEMENTS // K))


def _split(x: jax.Array, chunks: int) -> jax.Array:
    """(N, ...) -> (chunks, ceil(N / chunks), ...), padded with zeros.

    A chunk takes every chunks-th token: the tokens of a batch that is split over devices stay where they are, and all
    devices work on each chunk.
    """
    padding = [(0, -len(x) % chunks)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1)
