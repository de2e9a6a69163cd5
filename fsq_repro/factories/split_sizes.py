"""Whether a folder of pictures has enough of them for the evaluation that a config asks for: told before training."""

from ml_collections import ConfigDict

from fsq_repro.data.sources import Source

LEAST_OF_A_DISTANCE = 2  # a covariance needs two images
LEAST_OF_PRECISION = 4  # and the third nearest other image four


def check_split_sizes(config: ConfigDict, source: Source) -> None:
    """ValueError, with the numbers, where the evaluation would fail after the training for want of images.

    `source` is any split of the config's data. Only folders tell how many images all splits have: published sets have
    enough.
    """
    counts = getattr(source, "class_counts", None)
    if counts is None or not config.eval.get("networks"):
        return
    e, draws_samples = config.eval, "samples" in config.eval
    images = {split: of_split.total() for split, of_split in counts.items()}
    least = {"train": LEAST_OF_A_DISTANCE, "test": LEAST_OF_A_DISTANCE}
    if draws_samples:  # they are compared with training images
        least = {"train": LEAST_OF_PRECISION, "test": 1}
    if any(images[split] < number for split, number in least.items()):
        found = ", ".join(f"{number} for {split}" for split, number in images.items())
        needed = " and ".join(f"{number} for {split}" for split, number in least.items())
        raise ValueError(
            f"data.source {source.name!r} has {found}, but the evaluation (eval.networks = {tuple(e.networks)}) needs "
            f"at least {needed}: add images, or put some into folders train/ and test/"
        )
    if not draws_samples:
        return
    of_classes = {"picture_labels": (1, e.picture_labels)}
    if e.class_distances:
        of_classes["class_distances"] = (2, range(source.num_classes))
    for field, (number, labels) in of_classes.items():
        for label in labels:
            if counts["train"][label] < number:
                raise ValueError(
                    f"eval.{field} = {e[field]} needs at least {number} training images of each of its classes, "
                    f"{source.name!r} has {counts['train'][label]} of {source.class_names[label]!r}"
                )
    if e.class_agreement and len(+counts["train"]) < 2:
        raise ValueError(f"eval.class_agreement = True needs training images of two classes in {source.name!r}")
