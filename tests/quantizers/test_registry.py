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
        ({"name": "ema_vq", "codebook_size": 4, "embedding_dim": 2, "splitting": False}, "ema_vq_no_splitting"),
    ],
)
def test_an_ablation_has_a_name_of_its_own(fields, label):
    assert quantizer_label(**fields) == label


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "pq"}, f"^quantizer.name = 'pq' is not one of {', '.join(QUANTIZERS)}$"),
        ({"name": "fsq", "codebook_size": 4}, "quantizer.codebook_size is not a field of quantizer 'fsq', which has b"),
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
    assert quantizer_label(kind, **suggest(codebook_size=size, kind=kind)) == kind  # nothing but the published method


@pytest.mark.parametrize(
    ("size", "kind", "words"),
    [
        (64, "pq", "kind = 'pq' is not one of fsq, vq"),
        (1, "lfq", "codebook_size is 1, but must be an integer in 2"),
        (64.0, "vq", "codebook_size is 64.0, but must be"),
        (32, "fsq", "codebook_size is 32, but the paper has levels for"),
        (2**31 - 1, "lfq", "num_bits is 31, but"),
    ],
)
def test_what_cannot_be_suggested_is_refused(size, kind, words):
    with pytest.raises(ValueError, match=words):
        suggest(codebook_size=size, kind=kind)
