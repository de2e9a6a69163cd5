import pytest

from fsq_repro.quantizers import FSQ, QUANTIZERS, EmaVectorQuantizer, make_quantizer, quantizer_label, suggest


def test_quantizers_by_name():
    assert make_quantizer("fsq", levels=(8, 5)) == FSQ((8, 5))
    assert make_quantizer("ema_vq", codebook_size=4, embedding_dim=2) == EmaVectorQuantizer(4, 2)


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"name": "fsq", "levels": (8, 5)}, "fsq"),
        ({"name": "vq", "codebook_size": 4, "embedding_dim": 33}, "vq"),
        ({"name": "vq", "codebook_size": 4, "embedding_dim": 256, "entropy_ratio": 0.0}, "vq_no_entropy"),
        ({"name": "vq", "codebook_size": 4, "embedding_dim": 32}, "vq_narrow"),
        ({"name": "vq", "codebook_size": 4, "embedding_dim": 2, "entropy_ratio": 0.0}, "vq_narrow_no_entropy"),
        (
            {"name": "vq", "codebook_size": 4, "embedding_dim": 64, "gradient": "rotation", "sync_nu": 0.2},
            "vq_rotation_sync",
        ),
        ({"name": "vq", "codebook_size": 4, "embedding_dim": 64, "affine_lr": 10.0}, "vq_affine"),
        ({"name": "l2_vq", "codebook_size": 4, "embedding_dim": 8}, "l2_vq"),
        ({"name": "l2_vq", "codebook_size": 4, "embedding_dim": 8, "entropy_ratio": 0.1}, "l2_vq_entropy"),
        ({"name": "simvq", "codebook_size": 4, "embedding_dim": 8, "bias": False}, "simvq_no_bias"),
        ({"name": "ibq", "codebook_size": 4, "embedding_dim": 8, "entropy_ratio": 0.0}, "ibq_no_entropy"),
        ({"name": "diveq", "codebook_size": 4, "embedding_dim": 8, "restart_every": 0}, "diveq_no_restarts"),
        ({"name": "ema_restart", "codebook_size": 4, "embedding_dim": 8, "min_count": 0.0}, "ema_restart_no_restarts"),
        ({"name": "ema_vq", "codebook_size": 4, "embedding_dim": 2, "gradient": "rotation"}, "ema_vq_rotation"),
        ({"name": "ema_vq", "codebook_size": 4, "embedding_dim": 2, "splitting": False}, "ema_vq_no_splitting"),
    ],
)
def test_an_ablation_has_a_name_of_its_own(fields, label):
    assert quantizer_label(**fields) == label


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "none"}, "^quantizer.name = 'none' is not one of fsq, .*ema_vq"),
        ({"name": "fsq", "codebook_size": 4}, "quantizer.codebook_size is not a field of quantizer 'fsq', which has b"),
        (
            {"name": "product", "groups": 2},
            "quantizer.quantizer is missing, but quantizer 'product' needs quan",
        ),
        ({"name": "fsq", "parent": None}, "quantizer.parent is not a field"),
    ],
)
def test_what_does_not_exist_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        make_quantizer(**fields)


def test_a_new_quantizer_is_a_registry_line(monkeypatch):
    class Other(FSQ):
        ablation = "half"

    monkeypatch.setitem(QUANTIZERS, "other", Other)
    assert make_quantizer("other", levels=(5,)).codebook_size == 5
    assert quantizer_label("other", levels=(5,)) == "other_half"


@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("size", [256, 1000, 2**14])
def test_what_is_suggested_is_about_that_large(kind, size):
    quantizer = make_quantizer(kind, **suggest(codebook_size=size, kind=kind))
    assert 0.75 < quantizer.codebook_size / size < 4 / 3 and quantizer.num_channels > 0
    assert not quantizer.ablation  # nothing but the published method


@pytest.mark.parametrize(
    ("size", "kind", "words"),
    [
        (64, "pq", "kind = 'pq' is not one of fsq, "),
        (1, "lfq", "codebook_size is 1, but must be an integer in 2"),
        (64.0, "vq", "codebook_size is 64.0, but must be"),
        (32, "fsq", "codebook_size is 32, but the paper has levels for"),
        (2**31 - 1, "lfq", "num_bits is 31, but"),
    ],
)
def test_what_cannot_be_suggested_is_refused(size, kind, words):
    with pytest.raises(ValueError, match=words):
        suggest(codebook_size=size, kind=kind)
