"""Labels of the UViM tasks: depth as bins, panoptic segments in canonical order, grey inputs, published crops.

Everything follows google-research/big_vision (`pp/proj/uvim/pp_ops.py`, `trainers/proj/uvim/{depth,panoptic}_task.py`)
and works on NumPy arrays of the host; class 0 and segment 0 are void everywhere.
"""

import numpy as np

MIN_DEPTH, MAX_DEPTH = 0.001, 10.0  # metres: range of the depth bins and of the pixels that are evaluated


def depth_to_bins(depth: np.ndarray, num_bins: int) -> np.ndarray:
    """Returns the uniform bin of [0.001, 10] m that each depth lies in; depths outside go to the first or last bin.

    Finite floats of any shape, metres -> int32 of the same shape, 0..K-1, where K = `num_bins` >= 2. Bin k is [edge_k,
    edge_k+1) with edge_k = 0.001 + k * 9.999 / num_bins. Pixels without a measured depth hold 0 and so fall into bin 0;
    the published loss leaves that bin out (`bins != 0`), and with it the few valid pixels nearer than edge_1 (0.04 m
    for 256 bins, 0.31 m for 32).
    """
    unit = (np.asarray(depth, np.float64) - MIN_DEPTH) / (MAX_DEPTH - MIN_DEPTH)
    return np.floor(unit * num_bins).clip(0, num_bins - 1).astype(np.int32)


def bins_to_depth(bins: np.ndarray, num_bins: int) -> np.ndarray:
    """Returns the depth at the centre of each bin: the prediction for the most likely bin.

    Bins are integers of any shape, 0..K-1; depths are float32 of the same shape, metres.
    """
    return ((bins + 0.5) / num_bins * (MAX_DEPTH - MIN_DEPTH) + MIN_DEPTH).astype(np.float32)


def make_canonical(ids_HxW: np.ndarray) -> np.ndarray:
    """Numbers the ids 1, 2, ... in raster order of their centres of mass, rows before columns; 0 stays 0.

    Integers >= 0 (memory grows with the largest) -> int32 (H, W). As the published `make_canonical` with main axis y:
    sorted by x + H * y of the mean column x and row y (H and not W, so that on images wider than high a column can
    outweigh a row). Ids of one key keep the order in which they first appear; the published code computes in float32,
    where near keys can swap.
    """
    height, width = ids_HxW.shape
    flat = ids_HxW.ravel()
    pixels = np.arange(flat.size)
    rows, columns = np.divmod(pixels, width)
    areas = np.bincount(flat, minlength=1)
    # Sums of integers are exact in float64, so that the order is the same on every machine.
    sums = np.bincount(flat, weights=columns + height * rows, minlength=1)
    first = np.zeros(len(areas), np.int64)
    first[flat[::-1]] = pixels[::-1]  # of equal indices the last assignment stays
    ids = 1 + np.flatnonzero(areas[1:])
    numbers = np.zeros(len(areas), np.int32)
    numbers[ids[np.lexsort((first[ids], sums[ids] / areas[ids]))]] = np.arange(1, len(ids) + 1)
    return numbers[ids_HxW]


def panoptic_labels(
    semantics_BxHxW: np.ndarray, instances_BxHxW: np.ndarray, num_classes: int, num_instances: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gives every segment its own canonical id, stuff too: the two label channels that UViM learns.

    A segment is a class with an instance id (COCO gives one to every segment; `scenes` has instance 0 on floor, walls
    and ceiling, which become a segment each: the published decoding gives all pixels of one id one class). Call it
    after cropping and resizing, as the published pipeline does.

    Args:
      semantics_BxHxW: integers, 0 for void, else the class.
      instances_BxHxW: integers >= 0; ignored on void.
      num_classes, num_instances: sizes of the heads, void included.

    Returns int32 (B, H, W) classes and int32 (B, H, W) segment ids; both 0 on void, and nowhere else.

    Raises ValueError as `check_panoptic`, and for more segments than the instance head can tell apart (the published
    one-hot labels silently lose the surplus).
    """
    check_panoptic(semantics_BxHxW, instances_BxHxW, num_classes)
    semantics_BxHxW = np.asarray(semantics_BxHxW)
    codes_BxHxW = segment_codes(semantics_BxHxW, instances_BxHxW)
    ids_BxHxW = np.stack([make_canonical(codes_HxW) for codes_HxW in codes_BxHxW])
    most = int(ids_BxHxW.max())
    if most >= num_instances:
        raise ValueError(
            f"num_instances must be at least {most + 1} for void and {most} segments, got {num_instances}."
        )
    return semantics_BxHxW.astype(np.int32), ids_BxHxW


def segment_codes(semantics: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Returns one number a segment, the same for all its pixels: int64 of the same shape, 0 on void and only there."""
    stride = int(np.max(instances, initial=0)) + 1
    return np.where(semantics == 0, 0, semantics.astype(np.int64) * stride + instances)


def check_panoptic(semantics: np.ndarray, instances: np.ndarray, num_classes: int) -> None:
    """ValueError for a panoptic map that is not integers of one shape, classes below `num_classes`, instances >= 0."""
    semantics, instances = np.asarray(semantics), np.asarray(instances)
    if semantics.dtype.kind not in "iu" or instances.dtype.kind not in "iu" or semantics.shape != instances.shape:
        raise ValueError(
            "semantics and instances must be integers of one shape, got "
            f"{semantics.dtype} {semantics.shape} and {instances.dtype} {instances.shape}."
        )
    if semantics.size and (semantics.min() < 0 or semantics.max() >= num_classes):
        raise ValueError(
            f"semantics must lie in 0..{num_classes - 1}, got values from {semantics.min()} to {semantics.max()}."
        )
    if instances.size and instances.min() < 0:
        raise ValueError(f"instances must not be negative, got {instances.min()}.")


def to_grey(images: np.ndarray) -> np.ndarray:
    """Removes the colour, the input of colorization: ITU-R 601 luma in three equal channels.

    Float32 (..., 3) in [0, 1], bytes over 255 -> the same kind and shape. Equals `tf.image.rgb_to_grayscale` of the
    uint8 image: weights 0.2989, 0.587, 0.114, scaled by 255.5 / 255 and truncated to a byte, here in integers so that
    no rounding differs.
    """
    red, green, blue = np.moveaxis(np.rint(images * 255).astype(np.int64), -1, 0)
    # 255.5 / 255 * (0.2989 r + 0.587 g + 0.114 b) = 511 * (2989 r + 5870 g + 1140 b) / (510 * 10,000)
    grey = 511 * (2989 * red + 5870 * green + 1140 * blue) // 5_100_000
    return np.repeat((grey.astype(np.float32) / 255)[..., None], 3, axis=-1)


def to_signed(images: np.ndarray) -> np.ndarray:
    """[0, 1] -> [-1, 1], the published value range of images and colour labels."""
    return images * 2 - 1


def to_unit(images: np.ndarray) -> np.ndarray:
    """[-1, 1] -> [0, 1], the inverse of `to_signed`; values outside are clipped as published."""
    return (images.clip(-1, 1) + 1) / 2
