"""The images below a folder: which there are, and which of them can be read.

Every tool that is given a folder lists and checks it here, so that all see the same images. Names are relative to the
folder, with "/" between their parts; those that are no UTF-8 hold surrogates, as `os.fsdecode` makes them.
"""

import concurrent.futures
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fsq_repro.data import cache
from fsq_repro.data.image_reader import EXTENSIONS, UnreadableImage, read_image_and_kind
from fsq_repro.files import atomic_path, printable
from fsq_repro.progress import track

log = logging.getLogger(__name__)

OTHERS = (".gif", ".jfif", ".jpe", ".jp2", ".avif", ".heic", ".heif", ".tga", ".exr")  # pictures that are left out
VERSION = 1  # of verdicts; raise when the reader takes or refuses other images


class Verdict(NamedTuple):
    """What was found of an image file; the fields but `bytes` and `time_ns` are None where they do not apply."""

    bytes: int
    time_ns: int  # of its last change
    unreadable: str | None  # why
    size: tuple[int, int] | None  # height and width in pixels
    kind: str | None  # as of `read_image_and_kind`


def image_names(root: pathlib.Path) -> list[str]:
    """Sorted names of the images anywhere below a folder, also behind symbolic links; hidden names are left out.

    A link back to a folder that it lies in is not followed. Pictures of formats that are not read are counted in a
    warning. ValueError for a folder that cannot be listed.
    """
    names, others = list[str](), Counter[str]()
    for name in _below(root, "", ()):
        suffix = os.path.splitext(name)[1].lower()
        if suffix in EXTENSIONS:
            names.append(name)
        elif suffix in OTHERS:
            others[suffix] += 1
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        warn_once(f"pictures of other formats below {printable(root)} are left out: {kinds}")
    return sorted(names)


def check_images(root: pathlib.Path, names: Sequence[str]) -> dict[str, Verdict]:
    """Decodes images once and tells what was found: name -> verdict, in the order of `names`.

    Verdicts are kept in the cache and reused while size and time of a file stay the same. Unreadable images are named
    and counted in warnings, once per process.
    """
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    file = cache.cache_dir() / f"images-{VERSION}-{digest}.json"
    known = _load(file)
    stamps = {name: (s.st_size, s.st_mtime_ns) for name in names for s in [os.stat(f"{root}/{name}")]}
    new = [name for name in names if name not in known or known[name][:2] != stamps[name]]
    passing = set[str]()  # failures of the disk, not to be kept

    def check(name: str) -> Verdict:
        try:
            image, kind = read_image_and_kind(root / name)
        except UnreadableImage as e:
            if not e.lasting:
                passing.add(name)
            return Verdict(*stamps[name], e.reason, None, None)
        return Verdict(*stamps[name], None, image.shape[:2], kind)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        known |= zip(new, track(pool.map(check, new), f"reading {printable(root)}", len(new)), strict=True)
    if new:
        _save(file, {name: verdict for name, verdict in known.items() if name not in passing})
    verdicts = {name: known[name] for name in names}
    bad = {name: verdict.unreadable for name, verdict in verdicts.items() if verdict.unreadable is not None}
    for name, reason in bad.items():
        warn_once(f"unreadable image left out: {printable(root / name)} ({reason})")
    if bad:
        warn_once(f"{len(bad)} of {len(names)} images below {printable(root)} cannot be read and are left out")
    return verdicts


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning, the first time in this process: a folder is opened for each split."""
    log.warning(message)


def _below(folder: pathlib.Path, prefix: str, above: tuple[pathlib.Path, ...]) -> Iterator[str]:
    """Names of all files below a folder, behind a prefix."""
    here = folder.resolve()
    if here in above:
        return
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as e:
        raise ValueError(f"the folder {printable(folder)} cannot be listed: {e.strerror}.") from e
    for entry in seen:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            continue
        if is_folder:
            yield from _below(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
        elif is_file:
            yield prefix + entry.name


def _load(file: pathlib.Path) -> dict[str, Verdict]:
    """The verdicts in a file; none where there is no file or a damaged one, for they are easily made again."""
    try:
        entries = json.loads(file.read_text()).items()
        return {
            name: Verdict(size, time, why, shape and (shape[0], shape[1]), kind)
            for name, (size, time, why, shape, kind) in entries
            if (why is None) == bool(shape)
        }
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        log.warning("%s is damaged and made again", file)
        return {}


def _save(file: pathlib.Path, verdicts: dict[str, Verdict]) -> None:
    try:
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(verdicts))
    except OSError as e:  # they only save time
        log.warning("%s cannot be written (%s): the images will be checked again", file, e.strerror)
