"""The representation study with a lossless toy codec: each code is one colour of a 2x2 px cell."""

import numpy as np
import pytest

from fsq_repro.visualization.representation import constant_grids, iid_grids, representation_study, stitch_halves

K, SIDE, N = 7, 4, 23
PALETTE = np.random.default_rng(0).choice(256**3, K, replace=False)
PALETTE = np.stack([PALETTE // 256**2, PALETTE // 256 % 256, PALETTE % 256], axis=1).astype(np.uint8)
# Code 6 never occurs, the others with growing shares.
TOKENS = np.random.default_rng(1).choice(6, size=(N, SIDE, SIDE), p=np.arange(1, 7) / 21)


def paint(tokens):
    return PALETTE[tokens].repeat(2, axis=1).repeat(2, axis=2)


def read(pictures):
    """Codes of painted uint8 pictures; fails if a cell has no colour of the palette or is not of one colour."""
    matches = (pictures[:, ::2, ::2, None, :] == PALETTE).all(axis=-1)
    assert (matches.sum(axis=-1) == 1).all()
    tokens = matches.argmax(axis=-1)
    np.testing.assert_array_equal(paint(tokens), pictures)
    return tokens


def places(pictures):
    """Which images of the split these are."""
    return [TOKENS.tolist().index(tokens) for tokens in read(pictures).tolist()]


def encode(images):
    return read(np.rint(images * 255).astype(np.uint8)).astype(np.int32)


def decode(indices):
    assert indices.dtype == np.int32
    return (paint(indices) / 255).astype(np.float32)


def padded_batches(size):
    images = (paint(TOKENS) / 255).astype(np.float32)
    padding = (paint(np.full((size, SIDE, SIDE), 6)) / 255).astype(np.float32)  # a code that must not be counted
    for start in range(0, N, size):
        batch = images[start : start + size]
        yield {"image": np.concatenate([batch, padding])[:size], "mask": np.arange(size) < len(batch)}


def study(size=8, **changes):
    arguments = {"expected_count": N, "codebook_size": K, "seed": 3} | changes
    return representation_study(encode, decode, padded_batches(size), **arguments)


def test_counts_and_constants():
    result = study()
    counts = np.bincount(TOKENS.ravel(), minlength=K)
    np.testing.assert_array_equal(result["counts_K"], counts)
    assert result["constant_codes"] == np.argsort(-counts)[:3].tolist()
    np.testing.assert_allclose(result["constant_shares"], np.sort(counts)[::-1][:3] / TOKENS.size)
    expected = np.broadcast_to(np.array(result["constant_codes"])[:, None, None], (3, SIDE, SIDE))
    np.testing.assert_array_equal(read(result["constants"]), expected)
    assert result["constants"].dtype == np.uint8


def test_stitches_join_six_different_images_of_the_split():
    result = study()
    tops, bottoms = read(result["tops"]), read(result["bottoms"])
    assert len({*places(result["tops"]), *places(result["bottoms"])}) == 6
    stitched = read(result["latent_stitches"])
    np.testing.assert_array_equal(stitched[:, :2], tops[:, :2])
    np.testing.assert_array_equal(stitched[:, 2:], bottoms[:, 2:])
    # This codec treats cells one by one, so both stitches show the same.
    np.testing.assert_array_equal(result["pixel_stitches"], result["latent_stitches"])


def test_pixel_stitches_are_of_the_images_not_of_reconstructions():
    result = representation_study(
        encode, lambda t: 1.0 - decode(t), padded_batches(8), expected_count=N, codebook_size=K, seed=3
    )
    np.testing.assert_array_equal(result["pixel_stitches"][:, :4], result["tops"][:, :4])
    np.testing.assert_array_equal(result["pixel_stitches"][:, 4:], result["bottoms"][:, 4:])
    np.testing.assert_array_equal(result["latent_stitches"], 255 - result["pixel_stitches"])


def test_only_the_seed_decides():
    def arrays(s):
        return [s["soups"], s["tops"], s["bottoms"]]

    for a, b in zip(arrays(study(8)), arrays(study(5)), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(arrays(study()), arrays(study(seed=4)), strict=True):
        assert (a != b).any()


def test_every_image_can_be_picked():
    picked = set()
    for seed in range(60):
        picked |= set(places(study(seed=seed)["tops"]))
    assert picked == set(range(N))


def test_soups_follow_the_histogram():
    counts = np.array([0, 100, 300, 0, 600])
    grids = iid_grids(counts, 50, (8, 25), np.random.default_rng(0))
    assert grids.shape == (50, 8, 25) and grids.dtype == np.int32
    share = np.bincount(grids.ravel(), minlength=5) / 10_000
    assert share[0] == share[3] == 0
    np.testing.assert_allclose(share, counts / 1000, atol=3 * np.sqrt(0.25 / 10_000))
    # Neighbours are independent: the joint share of equal neighbours is the sum of squared shares.
    equal = (grids[:, :, 1:] == grids[:, :, :-1]).mean()
    assert equal == pytest.approx(0.46, abs=3 * np.sqrt(0.25 / 9600))
    assert set(np.unique(read(study()["soups"]))) <= set(range(6))


def test_constant_grids():
    grids = constant_grids(np.array([5, 0, 9, 5]), 3, (2, 3))
    np.testing.assert_array_equal(grids[:, 0, 0], [2, 0, 3])  # equal counts: the lower index first
    assert grids.shape == (3, 2, 3) and grids.dtype == np.int32
    assert (grids == grids[:, :1, :1]).all()
    assert len(constant_grids(np.array([5, 0, 9]), 3, (2, 3))) == 2  # codes that never occur are not shown


def test_a_collapsed_codebook_can_be_studied():
    result = representation_study(
        lambda images: np.full((len(images), SIDE, SIDE), 2),
        decode,
        padded_batches(8),
        expected_count=N,
        codebook_size=K,
        seed=0,
    )
    assert (result["constant_codes"], result["constant_shares"]) == ([2], [1.0])
    assert (read(result["soups"]) == 2).all() and len(result["soups"]) == 3


def test_odd_heights_give_the_smaller_part_to_the_top():
    a, b = np.zeros((1, 5, 3)), np.ones((1, 5, 3))
    np.testing.assert_array_equal(stitch_halves(a, b)[0, :, 0], [0, 0, 1, 1, 1])


def test_refusals():
    with pytest.raises(ValueError, match="saw 23 images, the split has 24"):
        study(expected_count=24)
    with pytest.raises(ValueError, match="saw 23 images, the split has 22"):
        study(expected_count=22)
    with pytest.raises(ValueError, match="at least 6 images, the split has 5"):
        study(expected_count=5)
    with pytest.raises(ValueError, match="in 0..4"):
        study(codebook_size=5)
