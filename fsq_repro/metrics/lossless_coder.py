"""A real lossless coder of tokens: a range coder driven by a stage-2 model (paper section 4.2, "compression cost").

`compression.py` computes what the tokens cost; this writes the bit stream, and reads it back. Per batch and per group
the model sees the tokens coded so far (`mask_id` elsewhere) and the group's tokens are coded with its softmax by the
range coder of the `constriction` package (Bamler 2022; 24-bit fixed-point probabilities).

Encoder and decoder need bitwise equal logits. Both therefore run through one loop, `_code`, which feeds the model the
same arrays in the same shape. A stream can be read by the same model, batch size, software and kind of machine; a
CRC-32 of the tokens, its last word, catches every other case.
"""

import zlib
from collections.abc import Callable, Sequence

import constriction
import numpy as np

from fsq_repro.metrics.compression import group_table

LogitsFn = Callable[[np.ndarray, np.ndarray], np.ndarray]  # tokens (B, S), labels (B,), int32 -> float32 (B, S, K)
_FAMILY = constriction.stream.model.Categorical(perfect=False)  # probabilities come with each symbol


def encode(
    logits_fn: LogitsFn,
    tokens_NxS: np.ndarray,
    labels_N: np.ndarray,
    groups: Sequence[np.ndarray],
    mask_id: int,
    *,
    batch_size: int,
) -> np.ndarray:
    """Codes all sequences into one stream.

    Beyond the cost of `compression.py` a stream spends its last word (CRC-32), at most two words to end the range
    coder, and about K * 2^-24 * log2(e) bits per token because every code keeps a probability of at least 2^-24.

    Args:
      logits_fn: deterministic, called with one shape only: tokens int32 (batch_size, S), labels int32 (batch_size,).
        A causal model fits too: give it raster-order singletons as groups.
      tokens_NxS: int, 0..K-1.
      labels_N: int.
      groups: position arrays in coding order, each position of 0..S-1 in exactly one.
      mask_id: the token that stands for "not coded yet".
      batch_size: sequences per call; the last batch is padded with masked sequences of label 0.

    Returns:
      uint32 words; the stream's length in bits is 32 times their number.

    Raises:
      ValueError: shapes that do not fit, tokens outside 0..K-1, logits that are not finite float32 (batch_size, S, K),
        batch_size < 1, or from `group_table`.
    """
    tokens_NxS, labels_N = np.asarray(tokens_NxS), np.asarray(labels_N)
    if tokens_NxS.ndim != 2 or labels_N.shape != tokens_NxS.shape[:1] or tokens_NxS.dtype.kind not in "iu":
        raise ValueError(
            f"the coder needs integer tokens (N, S) and labels (N,), got {tokens_NxS.dtype} {tokens_NxS.shape} and "
            f"{labels_N.shape}."
        )
    encoder = constriction.stream.queue.RangeEncoder()

    def encode_symbols(rows: slice, positions: np.ndarray, probabilities_TxK: np.ndarray) -> np.ndarray:
        symbols_T = tokens_NxS[rows, positions].ravel()
        K = probabilities_TxK.shape[1]
        if symbols_T.min() < 0 or symbols_T.max() >= K:
            raise ValueError(f"tokens must lie in 0..{K - 1}, got {symbols_T.min()} to {symbols_T.max()}.")
        symbols_T = symbols_T.astype(np.int32)
        encoder.encode(symbols_T, _FAMILY, probabilities_TxK)
        return symbols_T

    coded_NxS = _code(encode_symbols, logits_fn, labels_N, groups, mask_id, tokens_NxS.shape[1], batch_size)
    return np.append(encoder.get_compressed(), _checksum(coded_NxS))


def decode(
    logits_fn: LogitsFn,
    words: np.ndarray,
    labels_N: np.ndarray,
    groups: Sequence[np.ndarray],
    mask_id: int,
    num_tokens: int,
    *,
    batch_size: int,
) -> np.ndarray:
    """Reads back what `encode` wrote with the same model, labels, groups, mask and batch size.

    Args:
      words: uint32, the whole stream.
      num_tokens: tokens per sequence, S.
      Others: as for `encode`.

    Returns:
      int32 (N, S).

    Raises:
      ValueError: the tokens fail the stream's checksum (damaged stream, other labels, another model), the words are
        not a uint32 vector, or as `encode`.
    """
    words, labels_N = np.asarray(words), np.asarray(labels_N)
    if words.dtype != np.uint32 or words.ndim != 1 or len(words) == 0:
        raise ValueError(f"a stream is a uint32 vector of at least one word, got {words.dtype} {words.shape}.")
    decoder = constriction.stream.queue.RangeDecoder(words[:-1])

    def decode_symbols(rows: slice, positions: np.ndarray, probabilities_TxK: np.ndarray) -> np.ndarray:
        return decoder.decode(_FAMILY, probabilities_TxK)

    mismatch = (
        "the stream does not decode to the tokens that it was made from: it is damaged, or labels or model differ."
    )
    try:
        tokens_NxS = _code(decode_symbols, logits_fn, labels_N, groups, mask_id, num_tokens, batch_size)
    except AssertionError as error:  # constriction: "Tried to decode from compressed data that is invalid for ..."
        raise ValueError(mismatch) from error
    if _checksum(tokens_NxS) != words[-1]:
        raise ValueError(mismatch)
    return tokens_NxS


def _code(
    code_symbols: Callable[[slice, np.ndarray, np.ndarray], np.ndarray],
    logits_fn: LogitsFn,
    labels_N: np.ndarray,
    groups: Sequence[np.ndarray],
    mask_id: int,
    num_tokens: int,
    batch_size: int,
) -> np.ndarray:
    """The loop of encoder and decoder: shows the model what is coded so far and codes the next group; int32 (N, S).

    `code_symbols(rows, positions, probabilities (T, K))` returns the T = rows x positions symbols, row by row.
    """
    group_table(groups, num_tokens)  # refuses groups that do not partition the positions
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    coded_NxS = np.empty((len(labels_N), num_tokens), dtype=np.int32)
    for start in range(0, len(labels_N), batch_size):
        rows = slice(start, min(start + batch_size, len(labels_N)))
        real = rows.stop - rows.start
        labels_B = np.zeros(batch_size, dtype=np.int32)
        labels_B[:real] = labels_N[rows]
        known_BxS = np.full((batch_size, num_tokens), mask_id, dtype=np.int32)
        for group in groups:
            positions = np.asarray(group)
            logits_BxSxK = np.asarray(logits_fn(known_BxS, labels_B))
            if logits_BxSxK.dtype != np.float32 or logits_BxSxK.shape[:-1] != known_BxS.shape:
                raise ValueError(
                    f"logits_fn must return float32 ({batch_size}, {num_tokens}, K), got {logits_BxSxK.dtype} "
                    f"{logits_BxSxK.shape}."
                )
            logits_TxK = logits_BxSxK[:real, positions].reshape(real * len(positions), -1)
            symbols_T = code_symbols(rows, positions, _softmax(logits_TxK))
            known_BxS[:real, positions] = symbols_T.reshape(real, len(positions))
        coded_NxS[rows] = known_BxS[:real]
    return coded_NxS


def _softmax(logits_TxK: np.ndarray) -> np.ndarray:
    """Softmax in float64. ValueError if a logit is not finite: the coder would write a stream from nonsense."""
    if not np.isfinite(logits_TxK).all():
        raise ValueError("logits_fn must return finite logits, got inf or NaN.")
    p_TxK = np.exp(logits_TxK.astype(np.float64) - logits_TxK.max(axis=1, keepdims=True))
    return p_TxK / p_TxK.sum(axis=1, keepdims=True)


def _checksum(tokens_NxS: np.ndarray) -> np.uint32:
    return np.uint32(zlib.crc32(tokens_NxS.astype("<i4").tobytes()))
