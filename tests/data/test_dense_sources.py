import io
import os

import numpy as np
import pytest
from PIL import Image

from fsq_repro.data import dense_labels, scenes
from fsq_repro.data.dense_sources import coco_labels, make_dense_source
from fsq_repro.data.pipeline import eval_batches
from fsq_repro.data.transforms import plain_resize

ID = np.array([1, 256, 65_536])
DEPTH, PANOPTIC = ("depth",), ("semantics", "instances")


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def write_set(root, name, version, features, examples):
    """Writes a prepared TFDS set as TFDS itself does with TensorFlow.

    `examples` are the items of train and of validation alike, or a dict with those of each split."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer

    folder = root / name / version
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    encoded = lambda theirs: [serializer.serialize_example(features.encode_example(x)) for x in theirs]  # noqa: E731
    if isinstance(examples, dict):
        splits = {split: encoded(theirs) for split, theirs in examples.items()}
    else:
        splits = dict.fromkeys(("train", "validation"), encoded(examples))
    infos = []
    for split, records in splits.items():
        template = tfds.core.ShardedFileTemplate(
            dataset_name=name.split("/")[0], data_dir=folder, filetype_suffix="array_record", split=split
        )
        writer = ArrayRecordWriter(os.fspath(template.sharded_filepath(shard_index=0, num_shards=1)), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        infos.append(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(records)], num_bytes=1, filename_template=template)
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, version=version, check_data=False
    )


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    return tmp_path


def annotation(rng, num_segments):
    """An image's panoptic picture, ids, labels and crowds; id 0 and an unlisted id are void."""
    ids = rng.choice(256**3 - 1, num_segments, replace=False) + 1
    pixels = rng.choice(np.concatenate([ids, [0, 7]]), (12, 16))
    pixels[0, 0] = 0
    panoptic = np.stack([pixels % 256, pixels // 256 % 256, pixels // 65_536], -1).astype(np.uint8)
    return panoptic, ids, rng.integers(133, size=num_segments), rng.random(num_segments) < 0.3


def write_coco(root, annotations, names=None):
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(num_classes=133)
    things = ["person", *(f"thing {i}" for i in range(1, 79)), "toothbrush"]
    label.names = names or [*things, "banner", *(f"stuff {i}" for i in range(1, 53))]
    rng = np.random.default_rng(1)
    box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    objects = [
        [dict(id=i, area=1, bbox=box, label=int(l), is_crowd=bool(c)) for i, l, c in zip(*segments, strict=True)]
        for _, *segments in annotations
    ]
    images = [rng.integers(0, 256, (*a[0].shape[:2], 3), np.uint8) for a in annotations]
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "panoptic_image": tfds.features.Image(encoding_format="png"),
        "panoptic_image/filename": tfds.features.Text(),
        "panoptic_objects": tfds.features.Sequence(
            dict(id=np.int64, area=np.int64, bbox=tfds.features.BBoxFeature(), label=label, is_crowd=np.bool_)
        ),
    }
    examples = [
        {"image": png(image), "panoptic_image": png(a[0]), "panoptic_objects": o, "image/id": 0}
        | {"image/filename": "a.jpg", "panoptic_image/filename": "a.png"}
        for image, a, o in zip(images, annotations, objects, strict=True)
    ]
    write_set(root, "coco/2017_panoptic", "1.1.0", features, examples)
    return images


def coco_oracle(panoptic, ids, labels, is_crowd):
    """The published way: one mask a segment."""
    semantics, instances = np.zeros(panoptic.shape[:2], int), np.zeros(panoptic.shape[:2], int)
    crowd = np.zeros(panoptic.shape[:2], bool)
    for place, (segment, label, is_group) in enumerate(zip(ids, labels, is_crowd, strict=True)):
        mask = panoptic.astype(int) @ ID == segment
        semantics[mask], instances[mask] = label + 1, place + 1
        crowd[mask] = is_group
    return {"semantics": semantics, "instances": instances, "crowd": crowd}


def assert_labels(got, expected):
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value)
    assert got["semantics"].dtype == got["instances"].dtype == np.int32 and got["crowd"].dtype == bool


def test_coco_labels_equal_a_mask_a_segment():
    rng = np.random.default_rng(0)
    for num_segments in [0, 1, 2, 30, 200] * 4:
        case = annotation(rng, num_segments)
        labels = coco_labels(*case)
        assert_labels(labels, coco_oracle(*case))
        assert labels["instances"][0, 0] == 0
        np.testing.assert_array_equal(labels["instances"] == 0, labels["semantics"] == 0)


def test_coco_without_tensorflow(data_dir):
    """Opened from its files, as its builder needs TensorFlow; items with none and with one segment among them."""
    rng = np.random.default_rng(0)
    annotations = [annotation(rng, n) for n in (5, 0, 1, 9)]
    images = write_coco(data_dir, annotations)
    source = make_dense_source(PANOPTIC, "coco/2017_panoptic", "train", 512)
    assert len(source) == 4
    assert source.num_semantics == 134 and source.things == tuple(range(1, 81))
    for i, case in enumerate(annotations):
        item = source[i]
        assert item.keys() == {"image", "label", "semantics", "instances", "crowd"}
        np.testing.assert_array_equal(item["image"], images[i])
        assert_labels(item, coco_oracle(*case))
        dense_labels.check_panoptic(item["semantics"], item["instances"], source.num_semantics)

    rest = make_dense_source(PANOPTIC, "tfds:coco/2017_panoptic:1.1.0", "train", 512, tfds_split="train[1:]")
    assert len(rest) == 3 and rest.fingerprint != source.fingerprint
    np.testing.assert_array_equal(rest[0]["image"], images[1])

    (batch,) = eval_batches(source, batch_size=4, resolution=24, transform=plain_resize)
    expected = coco_oracle(*annotations[3])
    rows, columns = np.arange(24) // 2, (2 * np.arange(24) + 1) // 3
    for key in expected:
        np.testing.assert_array_equal(batch[key][3], expected[key][np.ix_(rows, columns)])


@pytest.mark.parametrize("split", ["bogus", "train[", "train[x:]", "train[9:]", "train[4:]", ""])
def test_unusable_split_expressions(data_dir, split):
    rng = np.random.default_rng(0)
    write_coco(data_dir, [annotation(rng, 2) for _ in range(4)])
    with pytest.raises(ValueError, match="^data.splits has .* must ") as error:
        make_dense_source(PANOPTIC, "coco/2017_panoptic", "train", 512, tfds_split=split)
    assert repr(split) in str(error.value) and "\n" not in str(error.value)


def test_coco_classes_in_another_order_are_refused(data_dir):
    write_coco(data_dir, [annotation(np.random.default_rng(0), 1)], names=[f"class {i}" for i in range(133)])
    with pytest.raises(ValueError, match=r"toothbrush and banner as numbers 79 and 80, got \['class 79', 'class 80'\]"):
        make_dense_source(PANOPTIC, "coco/2017_panoptic", "train", 512)


def test_nyu_depth(data_dir):
    """Float16 metres become float32, what was not measured 0; validation is cut to the published crop."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    image, depth = rng.integers(0, 256, (480, 640, 3), np.uint8), rng.uniform(0.5, 9.9, (480, 640)).astype(np.float16)
    depth[60, 50:53] = np.nan, np.inf, -np.inf
    features = {
        "image": tfds.features.Image(shape=(480, 640, 3), encoding_format="png"),
        "depth": tfds.features.Tensor(shape=(480, 640), dtype=np.float16),
    }
    write_set(data_dir, "nyu_depth_v2", "0.0.1", features, [{"image": png(image), "depth": depth}])
    metres = depth.astype(np.float64)
    metres[60, 50:53] = 0
    whole = make_dense_source(DEPTH, "nyu_depth_v2", "train", 512)[0]
    assert whole["depth"].dtype == np.float32 and whole["label"] == 0
    np.testing.assert_array_equal(whole["depth"], metres)
    np.testing.assert_array_equal(whole["image"], image)
    fingerprints = set()
    for crop, top in (("uvim", 54), ("eigen", 45)):
        source = make_dense_source(DEPTH, "tfds:nyu_depth_v2", "validation", 512, crop=crop)
        test = make_dense_source(DEPTH, "tfds:nyu_depth_v2", "test", 512, crop=crop)
        np.testing.assert_array_equal(source[0]["depth"], metres[top : top + 426, 41:601])
        np.testing.assert_array_equal(test[0]["depth"], source[0]["depth"])  # the set has no test split
        np.testing.assert_array_equal(source[0]["image"], image[top : top + 426, 41:601])
        fingerprints.add(source.fingerprint)
    assert len(fingerprints) == 2
    with pytest.raises(ValueError, match="data.crop must be one of uvim, eigen, not 'none'"):
        make_dense_source(DEPTH, "nyu_depth_v2", "validation", 512, crop="none")


@pytest.mark.parametrize("named", [True, False])
def test_colorization_takes_any_image_set(data_dir, named):
    import tensorflow_datasets as tfds

    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    features = {"image": tfds.features.Image(encoding_format="png")}
    names = ["n01440764_10026.JPEG", "b.JPEG", "c.JPEG"]
    if named:
        features["file_name"] = tfds.features.Text()
    examples = [{"image": png(image)} | ({"file_name": name} if named else {}) for name in names]
    write_set(data_dir, "my_pictures", "1.0.0", features, examples)
    source = make_dense_source((), "my_pictures", "train", 512, tfds_split="train[:2]")
    assert len(source) == 2
    np.testing.assert_array_equal(source[0]["image"], image)
    if named:
        assert [source[i]["file_name"] for i in range(2)] == names[:2] and type(source[0]["file_name"]) is np.str_
    else:
        assert source[0].keys() == {"image", "label"}
    (batch,) = eval_batches(source, batch_size=2, resolution=8, transform=plain_resize)
    assert batch.keys() == {"image", "label", "mask"}


@pytest.mark.parametrize("labels", [DEPTH, (), PANOPTIC])
def test_scenes_serve_every_task(labels, tmp_path, monkeypatch):
    monkeypatch.setenv("FSQ_REPRO_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes, "NUM_SCENES", {"test": 2})
    source = make_dense_source(labels, "scenes", "test", 16)
    assert {"image", "depth", "semantics", "instances"} <= source[0].keys() and len(source) == 2
    assert source.num_semantics == 8 and source.things == (4, 5, 6, 7)
    assert {scenes.SEMANTIC_NAMES[i] for i in source.things} == set(scenes.SOLIDS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((DEPTH, "photos"), "data.source 'photos' lacks depth: the task needs scenes or nyu_depth_v2.$"),
        (
            (PANOPTIC, "tfds:nyu_depth_v2:0.0.1"),
            "lacks semantics and instances: the task needs scenes or coco",
        ),
        ((PANOPTIC, "folder:pictures"), "'folder:pictures' lacks semantics and instances"),
        ((PANOPTIC, "coco/2017_panoptic"), "'coco/2017_panoptic' is not prepared"),
        ((DEPTH, "nyu_depth_v2"), "not prepared .* prepare it with: python scripts/prepare_data.py"),
    ],
)
def test_unusable_sources(data_dir, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        make_dense_source(*arguments, "train", 32)
    assert "\n" not in str(error.value)


def test_unusable_arguments(data_dir):
    with pytest.raises(ValueError, match="not prepared .* prepare it with"):
        make_dense_source((), "imagenet2012", "train", 32, tfds_split="train[4096:]")
    with pytest.raises(ValueError, match=r"data.splits must be empty for data.source 'scenes'.* 'train\[4:\]'"):
        make_dense_source(DEPTH, "scenes", "train", 32, tfds_split="train[4:]")
    with pytest.raises(ValueError, match="train, validation, test, not 'val'"):
        make_dense_source(DEPTH, "nyu_depth_v2", "val", 32)
    with pytest.raises(ValueError, match="at least 8 pixels, not 4"):
        make_dense_source(DEPTH, "nyu_depth_v2", "train", 4)
