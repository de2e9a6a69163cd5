"""Nearest codeword and MaskGIT's entropy term, in chunks of tokens.

A distance matrix of 131,072 tokens and 2^16 codes has 32 GiB in float32. Here nothing of size tokens x codebook lives
longer than one chunk, forward or backward: the entropy term has a gradient written by hand, which computes each chunk's
distances again.
"""

import functools

import jax
import jax.numpy as jnp

CHUNK_ELEMENTS = 2**25  # of one device's distances, 128 MiB in float32: few and large operations for an accelerator
CPU_CHUNK_ELEMENTS = 2**20  # a CPU's cache holds a few of 4 MiB
BLOCK = 64  # codes that are looked through at once for the smallest distance

Sums = tuple[jax.Array, jax.Array]  # of the gradient for the codebook: with tokens and without


def nearest_codes(x_NxD: jax.Array, codebook_KxD: jax.Array) -> jax.Array:
    """Index of the nearest codeword by squared Euclidean distance, int32 (N,); of equal distances the lowest index.

    x (N, D) and codebook (K, D) are float32. A token with NaN gets some index in [0, K). No gradient.
    """
    x_NxD, codebook_KxD = jax.lax.stop_gradient((x_NxD, codebook_KxD))
    N, D = x_NxD.shape
    groups = num_groups(N)
    chunks = num_chunks(N // groups, len(codebook_KxD))

    def one_chunk(x_GxCxD: jax.Array) -> jax.Array:
        return _smallest(_distances(x_GxCxD.reshape(-1, D), codebook_KxD))[0].reshape(groups, -1)

    return _join(jax.lax.map(one_chunk, split_tokens(x_NxD, groups, chunks)), N)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def nearest_codes_and_entropy(
    x_NxD: jax.Array, codebook_KxD: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """`nearest_codes` and MaskGIT's entropy term (maskgit/libml/losses.py, type "softmax"): E[H(p)] - H(E[p]).

    p = softmax(-distances / temperature): confident for each token, even over all tokens of the global batch. The
    published function averages over the tokens of one device; the global mean gives the same on any number of them.

    x (N, D) and codebook (K, D) are float32, the term is a float32 scalar with gradients for both. The gradient is
    written by hand and cannot be differentiated again.
    """
    return _forward(x_NxD, codebook_KxD, temperature)[0]


def _forward(x_NxD: jax.Array, codebook_KxD: jax.Array, temperature: float) -> tuple[tuple, tuple]:
    (N, D), K = x_NxD.shape, len(codebook_KxD)
    groups = num_groups(N)
    chunks = num_chunks(N // groups, K)

    def one_chunk(p_sums_GxK: jax.Array, part: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        x_GxCxD, weight_GxC = part
        d_MxK = _distances(x_GxCxD.reshape(-1, D), codebook_KxD)
        indices_M, least_M = _smallest(d_MxK)
        s_MxK = (least_M[:, None] - d_MxK) / temperature
        q_MxK = jnp.exp(s_MxK)
        z_M = jnp.sum(q_MxK, axis=1)
        log_z_M = jnp.log(z_M)
        entropy_M = log_z_M - jnp.sum(q_MxK * s_MxK, axis=1) / z_M
        each = [a.reshape(groups, -1) for a in (indices_M, least_M, log_z_M, entropy_M)]
        q_GxCxK, weight_GxC = q_MxK.reshape(groups, -1, K), weight_GxC / z_M.reshape(groups, -1)
        return p_sums_GxK + jnp.einsum("gc,gck->gk", weight_GxC, q_GxCxK), each

    # What a chunk is padded with counts 0 times.
    parts = [split_tokens(a, groups, chunks) for a in (x_NxD, jnp.ones(N, jnp.float32))]
    p_sums_GxK, each = jax.lax.scan(one_chunk, jnp.zeros((groups, K), jnp.float32), parts)
    indices_N, least_N, log_z_N, entropy_N = (_join(a, N) for a in each)
    mean_p_K = jnp.sum(p_sums_GxK, axis=0) / N
    # The published code adds 1e-5 to the logits of the logarithm, which a softmax does not see, and here.
    loss = jnp.mean(entropy_N) + jnp.sum(mean_p_K * jnp.log(mean_p_K + 1e-5))
    return (indices_N, loss), (x_NxD, codebook_KxD, mean_p_K, least_N, log_z_N, entropy_N)


def _backward(temperature: float, saved: tuple, cotangents: tuple) -> tuple[jax.Array, jax.Array]:
    x_NxD, codebook_KxD, mean_p_K, *each = saved
    (N, D), K = x_NxD.shape, len(codebook_KxD)
    groups = num_groups(N)
    chunks = num_chunks(N // groups, K)
    dp_K = jnp.log(mean_p_K + 1e-5) + mean_p_K / (mean_p_K + 1e-5)  # of the entropy of the mean, times N

    def one_chunk(sums: Sums, part: list[jax.Array]) -> tuple[Sums, jax.Array]:
        """With a = -d / temperature: da = p (u - p.u) / N for u = dp - log p, and d's gradient goes on to x and e."""
        de_GxDxK, da_sums_GxK = sums
        x_GxCxD, *rest = part
        least_M, log_z_M, entropy_M, scale_M = (a.reshape(-1) for a in rest)
        d_MxK = _distances(x_GxCxD.reshape(-1, D), codebook_KxD)
        log_p_MxK = (least_M[:, None] - d_MxK) / temperature - log_z_M[:, None]
        p_MxK = jnp.exp(log_p_MxK)
        mean_u_M = p_MxK @ dp_K + entropy_M
        da_MxK = p_MxK * (dp_K[None] - log_p_MxK - mean_u_M[:, None]) * scale_M[:, None]
        da_GxCxK = da_MxK.reshape(groups, -1, K)
        dx_MxD = _matmul(da_MxK, codebook_KxD)
        # (D, K), not (K, D): the small factor is transposed and not the large one.
        de_GxDxK += _matmul(x_GxCxD.swapaxes(1, 2), da_GxCxK)
        return (de_GxDxK, da_sums_GxK + jnp.sum(da_GxCxK, axis=1)), dx_MxD.reshape(groups, -1, D)

    scale_N = jnp.full(N, 2 / (temperature * N), jnp.float32) * cotangents[1]  # 2 as in d = e.e - 2 x.e
    parts = [split_tokens(a, groups, chunks) for a in (x_NxD, *each, scale_N)]
    zeros = jnp.zeros((groups, D, K), jnp.float32), jnp.zeros((groups, K), jnp.float32)
    (de_GxDxK, da_sums_GxK), dx = jax.lax.scan(one_chunk, zeros, parts)
    de_KxD = jnp.sum(de_GxDxK, axis=0).T - jnp.sum(da_sums_GxK, axis=0)[:, None] * codebook_KxD
    return _join(dx, N), de_KxD


nearest_codes_and_entropy.defvjp(_forward, _backward)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Product in full float32 on every device, not tf32 or bfloat16."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _distances(x_MxD: jax.Array, codebook_KxD: jax.Array) -> jax.Array:
    """||e||^2 - 2 x.e, float32 (M, K): squared distances less ||x||^2, which no comparison of codes sees."""
    return jnp.sum(jnp.square(codebook_KxD), axis=1)[None] - 2 * _matmul(x_MxD, codebook_KxD.T)


def _smallest(d_MxK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index int32 (M,) and value (M,) of each row's smallest entry; of equal ones the first, of NaN the first.

    `jnp.argmin` of a row takes ten times as long on a CPU as `jnp.min`. So the minimum of each block comes first and
    argmin sees the blocks' minima, then one block.
    """
    M, K = d_MxK.shape
    block = max(b for b in range(1, BLOCK + 1) if K % b == 0)
    d_MxBxE = d_MxK.reshape(M, -1, block)
    least_MxB = jnp.min(d_MxBxE, axis=2)
    b_M = jnp.argmin(least_MxB, axis=1).astype(jnp.int32)
    d_MxE = jnp.take_along_axis(d_MxBxE, b_M[:, None, None], axis=1)[:, 0]
    return b_M * block + jnp.argmin(d_MxE, axis=1).astype(jnp.int32), jnp.min(least_MxB, axis=1)


def num_groups(N: int) -> int:
    """Into how many groups tokens are divided that go through the loop side by side: one a device.

    Of a batch that is split over all devices each has its own part of every chunk, and sums its own tokens until the
    sums are added up, once. With one sum for all, XLA would add up the codebook's gradient in every round.
    """
    devices = jax.sharding.get_abstract_mesh().size  # 0 where no mesh is told, as outside of the training step
    return devices if devices and N % devices == 0 else 1


def num_chunks(N: int, K: int) -> int:
    elements = CPU_CHUNK_ELEMENTS if jax.default_backend() == "cpu" else CHUNK_ELEMENTS
    return -(-N // max(1, elements // K))


def split_tokens(x: jax.Array, groups: int, chunks: int) -> jax.Array:
    """(N, ...) -> (chunks, groups, ceil(N / groups / chunks), ...), each group padded with zeros.

    A chunk takes every chunks-th token of each group: the tokens of a batch that is split over devices stay where they
    are, and all devices work on each chunk.
    """
    x = x.reshape(groups, -1, *x.shape[1:])
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % chunks)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(groups, -1, chunks, *x.shape[2:]), 2, 0)


def _join(x: jax.Array, N: int) -> jax.Array:
    """Undoes `split_tokens`: (chunks, groups, C, ...) -> (N, ...)."""
    x = jnp.moveaxis(x, 0, 2)
    x = x.reshape(x.shape[0], -1, *x.shape[3:])
    return x[:, : N // len(x)].reshape(N, *x.shape[2:])
