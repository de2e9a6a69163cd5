"""`make test-fast` runs the quick tests that tests/fast.txt lists: some of each folder."""

import pathlib

TESTS = pathlib.Path(__file__).resolve().parent
ENTRIES = [line.split("::") for line in (TESTS / "fast.txt").read_text().splitlines()]


def test_all_entries_exist():
    assert sorted(ENTRIES) == ENTRIES
    for file, *name in ENTRIES:
        text = (TESTS.parent / file).read_text()
        assert not name or f"def {name[0]}(" in text, name


def test_each_folder_is_covered():
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert folders - {"slurm"} == {pathlib.Path(file).parent.name for file, *_ in ENTRIES} - {"tests"}  # slurm is slow
