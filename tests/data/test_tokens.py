import numpy as np
import pytest

from fsq_repro.data.pipeline import token_eval_batches, token_iterator
from fsq_repro.data.tokens import encode_source
from tests.tiny import NoiseSource


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))


def encode(images: np.ndarray) -> np.ndarray:
    """Toy tokenizer: the red byte in the corner of each of 2 x 2 cells."""
    assert images.shape == (8, 16, 16, 3) and images.dtype == np.float32
    return np.round(images[:, ::8, ::8, 0] * 255).astype(np.int32)


def tokens(**changes):
    options = {"tokenizer": "a", "num_tokens": 4, "resolution": 16, "mirrored": True, "batch_size": 8} | changes
    return encode_source(NoiseSource(20), encode, **options)


def test_tokens_of_images_and_mirror_images():
    source = tokens()
    assert len(source) == 20
    for i in (0, 7, 19):
        image = NoiseSource(20)[i]["image"]
        for variant, picture in enumerate((image, image[:, ::-1])):
            np.testing.assert_array_equal(source[i]["tokens"][variant], picture[::8, ::8, 0].ravel())
        assert source[i]["label"] == i % 2


def test_made_once_for_each_tokenizer():
    calls = []

    def counting(images):
        calls.append(len(images))
        return encode(images)

    options = {"num_tokens": 4, "resolution": 16, "mirrored": False, "batch_size": 8}
    for tokenizer, total in (("a", 3), ("a", 3), ("b", 6)):
        encode_source(NoiseSource(20), counting, tokenizer=tokenizer, **options)
        assert len(calls) == total


def test_training_batches_take_both_variants_and_resume():
    source = tokens()
    iterator = token_iterator(source, batch_size=4, seed=1)
    batches = [next(iterator) for _ in range(10)]  # two epochs
    assert batches[0]["tokens"].shape == (4, 4) and batches[0]["label"].dtype == np.int32
    rows = {tuple(x) for i in range(20) for x in source[i]["tokens"]}
    drawn = [tuple(row) for b in batches for row in b["tokens"]]
    assert set(drawn) <= rows and len(set(drawn)) > 20
    again = token_iterator(source, batch_size=4, seed=1)
    next(again)
    state = again.get_state()
    resumed = token_iterator(source, batch_size=4, seed=1)
    resumed.set_state(state)
    np.testing.assert_array_equal(next(resumed)["tokens"], batches[1]["tokens"])


@pytest.mark.parametrize("process_count", [1, 3])
def test_evaluation_covers_every_item_once_over_the_processes(tmp_path, process_count):
    seen, lengths = [], []
    for i in range(process_count):
        share = tokens(process_index=i, process_count=process_count)
        batches = list(token_eval_batches(share, batch_size=3))
        lengths.append(len(batches))
        seen += [tuple(row) for b in batches for row in b["tokens"][b["mask"]]]
    whole = tokens()
    assert sorted(seen) == sorted(tuple(whole[i]["tokens"][0]) for i in range(20)) and len(set(lengths)) == 1
