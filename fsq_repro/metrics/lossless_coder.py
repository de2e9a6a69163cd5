"""A real lossless coder of tokens: a range coder driven by a stage-2 model (paper section 4.2, "compression cost").

`compression.py` computes what the tokens cost; this writes the bit stream, and reads it back. Per batch and per group
the model sees the tokens coded so far (`mask_id` elsewhere) and the group's tokens are coded with its softmax by the
range coder of the `constriction` package (Bamler 2022; 24-bit fixed-point probabilities).

Encoder and decoder need bitwise equal logits. Both therefore run through one loop, `_code`, which feeds the model the
same arrays in the same shape. A stream can be read by the same model, batch size, software and kind of machine; a
CRC-32 of the tokens, its last word, catches every other case.
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import constriction
import numpy as np
from scipy.special import softmax

LogitsFn = Callable[[np.ndarray, np.ndarray], np.ndarray]  # tokens (B, S), labels (B,), int32 -> float32 (B, S, K)
_FAMILY = constriction.stream.model.Categorical(perfect=False)  # probabilities come with each symbol


@dataclasses.dataclass(frozen=True)
class LosslessCoder:
    """Codes sequences of tokens under one model.

    `logits_fn` is deterministic and called with one shape only: tokens int32 (batch_size, S), labels int32
    (batch_size,). A causal model fits too: give it raster-order singletons as groups.
    """

    logits_fn: LogitsFn
    groups: Sequence[np.ndarray]  # positions in coding order, each of 0..S-1 in exactly one
    mask_id: int  # the token that stands for "not coded yet"
    batch_size: int  # sequences per call; the last batch is padded with masked sequences of label 0

    def encode(self, tokens_NxS: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
        """Codes all sequences, integers 0..K-1, into one stream: uint32 words, whose length in bits is 32 a word.

        Beyond the cost of `compression.py` a stream spends its last word (CRC-32), at most two words to end the range
        coder, and about K * 2^-24 * log2(e) bits per token because every code keeps a probability of at least 2^-24.
        """
        encoder = constriction.stream.queue.RangeEncoder()

        def encode_symbols(rows: slice, positions: np.ndarray, probabilities_TxK: np.ndarray) -> np.ndarray:
            symbols_T = tokens_NxS[rows, positions].ravel().astype(np.int32)
            encoder.encode(symbols_T, _FAMILY, probabilities_TxK)
            return symbols_T

        coded_NxS = self._code(encode_symbols, labels_N, tokens_NxS.shape[1])
        return np.append(encoder.get_compressed(), _checksum(coded_NxS))

    def decode(self, words: np.ndarray, labels_N: np.ndarray, num_tokens: int) -> np.ndarray:
        """Reads back what `encode` wrote with the same coder and labels: int32 (N, num_tokens).

        Raises ValueError where the tokens fail the stream's checksum (damaged stream, other labels, another model).
        """
        words = np.asarray(words)
        if words.ndim != 1 or words.size == 0 or words.dtype != np.uint32:
            raise ValueError(f"a stream must be uint32 words, at least one, got {words.dtype} {words.shape}.")
        decoder = constriction.stream.queue.RangeDecoder(words[:-1])

        def decode_symbols(rows: slice, positions: np.ndarray, probabilities_TxK: np.ndarray) -> np.ndarray:
            return decoder.decode(_FAMILY, probabilities_TxK)

        mismatch = (
            "the stream does not decode to the tokens that it was made from: it is damaged, or labels or model differ."
        )
        try:
            tokens_NxS = self._code(decode_symbols, labels_N, num_tokens)
        except AssertionError as error:  # constriction: "Tried to decode from compressed data that is invalid for ..."
            raise ValueError(mismatch) from error
        if _checksum(tokens_NxS) != words[-1]:
            raise ValueError(mismatch)
        return tokens_NxS

    def _code(
        self, code_symbols: Callable[[slice, np.ndarray, np.ndarray], np.ndarray], labels_N: np.ndarray, num_tokens: int
    ) -> np.ndarray:
        """The loop of both: shows the model what is coded so far and codes the next group; int32 (N, num_tokens).

        `code_symbols(rows, positions, probabilities (T, K))` returns the T = rows x positions symbols, row by row.
        """
        coded_NxS = np.empty((len(labels_N), num_tokens), dtype=np.int32)
        for start in range(0, len(labels_N), self.batch_size):
            rows = slice(start, min(start + self.batch_size, len(labels_N)))
            real = rows.stop - rows.start
            labels_B = np.zeros(self.batch_size, dtype=np.int32)
            labels_B[:real] = labels_N[rows]
            known_BxS = np.full((self.batch_size, num_tokens), self.mask_id, dtype=np.int32)
            for positions in self.groups:
                logits_BxSxK = np.asarray(self.logits_fn(known_BxS, labels_B))
                logits_TxK = logits_BxSxK[:real, positions].reshape(real * len(positions), -1).astype(np.float64)
                symbols_T = code_symbols(rows, positions, softmax(logits_TxK, axis=1))
                known_BxS[:real, positions] = symbols_T.reshape(real, len(positions))
            coded_NxS[rows] = known_BxS[:real]
        return coded_NxS


def _checksum(tokens_NxS: np.ndarray) -> np.uint32:
    return np.uint32(zlib.crc32(tokens_NxS.astype("<i4").tobytes()))
