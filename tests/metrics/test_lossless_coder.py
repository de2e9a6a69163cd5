"""The bit stream: exact round trips, the length that compression.py predicts, and no silent failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsq_repro.metrics.compression import masked_token_bits, token_bits
from fsq_repro.metrics.lossless_coder import LosslessCoder

K, S, N, MASK, B = 40, 16, 300, 40, 64  # 300 sequences: the last batch has 44 of 64
RASTER = [np.array([i]) for i in range(S)]
M2T = np.split(np.random.default_rng(0).permutation(S), [1, 3, 7])  # groups that grow, scattered positions
TOKENS = (np.random.default_rng(1).zipf(1.5, size=(N, S)) % K).astype(np.int32)
LABELS = np.random.default_rng(2).integers(0, 5, size=N).astype(np.int32)


def model(causal, seed=0):
    """A one-layer mixer over positions: logits (B, S, K) of all tokens, or of earlier ones only."""
    rng = np.random.default_rng(seed)
    width = 16
    embedding = jnp.asarray(rng.standard_normal((K + 1, width)), jnp.float32)
    classes = jnp.asarray(rng.standard_normal((5, width)), jnp.float32)
    mix = jnp.asarray(rng.standard_normal((S, S)), jnp.float32)
    head = jnp.asarray(rng.standard_normal((width, K)) / 3, jnp.float32)
    bias = -1.5 * jnp.log(1.0 + jnp.arange(K, dtype=jnp.float32))  # about the tokens' own frequencies
    if causal:
        mix = jnp.tril(mix, -1)

    def logits_fn(tokens_BxS, labels_B):
        x = jnp.einsum("ij,bjd->bid", mix, embedding[tokens_BxS]) / S + classes[labels_B][:, None, :]
        return jnp.tanh(x) @ head + bias[None, None, :]

    return jax.jit(logits_fn)


MASKED, CAUSAL = model(causal=False), model(causal=True)


@pytest.mark.parametrize("logits_fn, groups", [(MASKED, M2T), (MASKED, RASTER), (CAUSAL, RASTER)])
def test_round_trip_at_the_predicted_length(logits_fn, groups):
    words = LosslessCoder(logits_fn, groups, MASK, B).encode(TOKENS, LABELS)
    decoded = LosslessCoder(logits_fn, groups, MASK, B).decode(words, LABELS, S)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, TOKENS)
    if logits_fn is CAUSAL:
        bits = np.asarray(token_bits(logits_fn(TOKENS, LABELS), jnp.asarray(TOKENS)), np.float64).sum()
    else:
        bits = np.asarray(masked_token_bits(logits_fn, jnp.asarray(TOKENS), LABELS, groups, MASK), np.float64).sum()
    assert bits > 3 * N * S
    assert 0.9999 * bits < 32 * len(words) < 1.0001 * bits + 32 * 3  # the rest of a word, its end, the checksum


def test_both_sides_show_the_model_the_same_arrays():
    def recorded(calls):
        def logits_fn(tokens, labels):
            calls.append((tokens.copy(), labels.copy()))
            return np.asarray(MASKED(tokens, labels))

        return logits_fn

    encoder_calls, decoder_calls = [], []
    words = LosslessCoder(recorded(encoder_calls), M2T, MASK, B).encode(TOKENS, LABELS)
    LosslessCoder(recorded(decoder_calls), M2T, MASK, B).decode(words, LABELS, S)
    assert len(encoder_calls) == 5 * len(M2T)
    for a, b in zip(encoder_calls, decoder_calls, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
        assert a[0].shape == (B, S)
    # Nothing that the decoder cannot know: of the second group's call, the first group's tokens alone.
    shown = encoder_calls[1][0]
    np.testing.assert_array_equal(shown[:, M2T[0]], TOKENS[:B, M2T[0]])
    assert (np.delete(shown, M2T[0], axis=1) == MASK).all()


def test_damage_never_passes_silently():
    tokens, labels = TOKENS[:B], LABELS[:B]
    words = LosslessCoder(MASKED, M2T, MASK, B).encode(tokens, labels)

    def damaged(place, bit):
        copy = words.copy()
        copy[place] ^= np.uint32(1 << bit)
        return copy

    streams = [damaged(place, bit) for place in (0, len(words) // 2, -1) for bit in (0, 17, 31)]
    streams += [words[:-1], words[: len(words) // 2], words[:1], np.append(words, np.uint32(0)), words[1:]]
    streams.append(np.full_like(words, 2**32 - 1))  # the range coder itself refuses this one
    for stream in streams:
        with pytest.raises(ValueError, match="damaged, or labels or model differ"):
            LosslessCoder(MASKED, M2T, MASK, B).decode(stream, labels, S)
    other_labels = labels.copy()
    other_labels[5] = (labels[5] + 1) % 5
    for logits_fn, labels_N in ((MASKED, other_labels), (model(causal=False, seed=1), labels)):
        with pytest.raises(ValueError, match="damaged, or labels or model differ"):
            LosslessCoder(logits_fn, M2T, MASK, B).decode(words, labels_N, S)


@pytest.mark.parametrize("words", [np.zeros(0, np.uint32), np.zeros(3, np.int64), np.zeros((1, 3), np.uint32)])
def test_what_is_no_stream_is_refused(words):
    with pytest.raises(ValueError, match=r"a stream must be uint32 words, at least one, got u?int\d\d \("):
        LosslessCoder(MASKED, M2T, MASK, B).decode(words, LABELS, S)


def test_a_certain_model_costs_next_to_nothing_and_an_impossible_token_still_decodes():
    def certain(tokens, labels):
        return np.where(np.arange(K) == 7, np.float32(200), np.float32(0)) + np.zeros((*tokens.shape, 1), np.float32)

    tokens = np.full((10, S), 7)
    assert len(LosslessCoder(certain, M2T, MASK, 4).encode(tokens, LABELS[:10])) <= 3
    tokens[3, 4] = 11  # probability e^-200
    words = LosslessCoder(certain, M2T, MASK, 4).encode(tokens, LABELS[:10])
    np.testing.assert_array_equal(LosslessCoder(certain, M2T, MASK, 4).decode(words, LABELS[:10], S), tokens)
