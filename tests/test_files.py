"""Files that appear whole or not at all, and paths that are refused before the work."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from fsq_repro.files import atomic_directory, atomic_path, check_output, printable

NOT_UTF_8 = os.fsdecode(b"caf\xe9")


def listing(root: pathlib.Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


@pytest.fixture
def root(tmp_path):
    """A folder with one of each thing that may stand in the way of an output."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "read only").write_text("old")
    (tmp_path / "read only").chmod(0o444)
    (tmp_path / "link to a file").symlink_to("file")
    (tmp_path / "link to a folder").symlink_to("folder")
    (tmp_path / "link to nowhere").symlink_to("nowhere")
    (tmp_path / "link to itself").symlink_to("link to itself")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


GOOD_FILES = [
    "new",
    "file",
    "read only",
    "link to a file",
    "a/b/c/new",
    "folder/new",
    "link to a folder/new",
    NOT_UTF_8,
]
GOOD_FOLDERS = ["new", "folder", "link to a folder", "folder/a/b", NOT_UTF_8]
BAD_FILES = {
    "": "is a folder",
    "folder": "is a folder",
    "link to a folder": "is a folder",
    "folder/..": "is a folder",
    "pipe": "is a device",
    "file/new": "no file can be written in .*/file (Not a directory)",
    "file/a/b/new": "no file can be written in .*/file (Not a directory)",
    "link to itself": "Too many levels of symbolic links",
    "link to itself/new": "Too many levels of symbolic links",
    "x" * 300: "File name too long",
    "/proc/new": "no file can be written in /proc (No such file or directory)",
    "/proc/new/new": "no file can be written in /proc (No such file or directory)",
    "/dev/null": "is a device",
    "/dev/null/new": "no file can be written in /dev/null (Not a directory)",
}
BAD_FOLDERS = {
    "file": "is a file",
    "link to a file": "is a file",
    "file/new": "no folder can be written in .*/file (Not a directory)",
    "/proc": "no folder can be written in /proc (No such file or directory)",
    "/proc/new": "no folder can be written in /proc (No such file or directory)",
    "/dev/null": "is a device",
}


@pytest.mark.parametrize("is_folder", [False, True])
def test_good_paths_are_taken_and_bad_ones_refused(root, is_folder):
    """A path that is taken can be written afterwards; neither changes anything."""
    before = listing(root)
    for name in GOOD_FOLDERS if is_folder else GOOD_FILES:
        check_output(root / name, is_folder=is_folder)
    for name, message in (BAD_FOLDERS if is_folder else BAD_FILES).items():
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            check_output(root / name, is_folder=is_folder)
    assert listing(root) == before
    for name in GOOD_FOLDERS if is_folder else GOOD_FILES:
        path = root / name / "inside" if is_folder else root / name
        with atomic_path(path) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(root):
    (root / "folder").chmod(0o555)
    with pytest.raises(ValueError, match=r"no file can be written in .*folder \(Permission denied\)"):
        check_output(root / "folder" / "new")


def test_a_disk_that_is_read_only(tmp_path):
    """A real one, in a name space of its own: there root is refused as anybody is."""
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path} && mount -o remount,ro {tmp_path} && "
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, f"{mount} true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    check = f"from fsq_repro.files import check_output; check_output('{tmp_path}/a/new')"
    run = subprocess.run([*unshare, f'{mount} exec {sys.executable} -c "{check}"'], capture_output=True, text=True)
    assert f"ValueError: no file can be written in {tmp_path} (Read-only file system)" in run.stderr


def test_home_and_long_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "x" * 251 + ".txt"
    check_output(f"~/{name}")
    with atomic_path(f"~/{name}") as temporary:
        temporary.write_text("new")
    assert (tmp_path / name).read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_after_an_error_all_is_as_it_was(root):
    before = listing(root)
    with pytest.raises(OSError, match="full"), atomic_path(root / "file") as temporary:
        temporary.write_text("half")
        raise OSError("full")
    with pytest.raises(OSError, match="full"), atomic_directory(root / "new") as partial:
        (partial / "half").write_text("half")
        raise OSError("full")
    assert listing(root) == before


def test_any_name_can_be_printed():
    assert printable(NOT_UTF_8) == r"caf\xe9" and printable("Zürich, 東京") == "Zürich, 東京"
    assert printable(pathlib.Path("a") / NOT_UTF_8) == r"a/caf\xe9"
