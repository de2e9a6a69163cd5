"""Every script refuses an output that cannot be written when it reads its command line, not after the work."""

import ast
import pathlib

import pytest

from tests.scripts.processes import ROOT, run_all

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
DEFINE = {"define_output_file", "define_output_files", "define_output_folder"}
OUTPUTS = ("out", "npz", "json", "cache")  # what flags for outputs are called
WRITE_TO_RUNS = ("train", "evaluate", "import_weights")  # others read from --workdir, or leave it to these


def flags_of(script: pathlib.Path) -> dict[str, str]:
    """Name -> the function that defines it, of all flags of a script."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    named = [(c.args[0].value, c.func) for c in calls if c.args and isinstance(c.args[0], ast.Constant)]
    functions = {name: getattr(f, "id", getattr(f, "attr", "")) for name, f in named}
    return {name: f for name, f in functions.items() if f in DEFINE or f.startswith("DEFINE_")}


def outputs_of(script: pathlib.Path) -> dict[str, str]:
    names = (*OUTPUTS, "workdir") if script.stem in WRITE_TO_RUNS else OUTPUTS
    return {name: f for name, f in flags_of(script).items() if name in names and f != "DEFINE_boolean"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_flags_of_outputs_are_checked(script):
    assert set(outputs_of(script).values()) <= DEFINE
    assert {name for name, f in flags_of(script).items() if f in DEFINE} == outputs_of(script).keys()


def test_bad_outputs_end_in_one_sentence(tmp_path):
    """Before anything else is looked at: the other flags name nothing that is there."""
    (tmp_path / "file.png").write_text("old")
    needed = {"runs": "/no/run", "workdir": "/no/run", "data": "photos", "resolution": "32", "features": "alexnet"}
    needed |= {"config": "configs/tradeoff_autoencoder.py", "file": "/no/weights"}
    cases = {}
    for script in SCRIPTS:
        flags = flags_of(script)
        others = [f"--{name}={value}" for name, value in needed.items() if name in flags]
        for name in outputs_of(script):
            others = [other for other in others if not other.startswith(f"--{name}=")]
            argv = [f"scripts/{script.name}", *others, f"--{name}={tmp_path}/file.png/new"]
            if script.stem == "reference_stats":
                argv[-1] = "--out=/proc/new.npz"
            elif script.stem == "representation":
                argv[-1] += ".png"
            elif name != "out" and "out" in flags:
                argv.append(f"--out={tmp_path}/fine")
            cases[f"{script.stem} {name}"] = argv
    assert {name.split()[0] for name in cases} >= {"compare", "predict", "reference_stats", "report", "sample"}
    for case, (code, output) in run_all(cases, tmp_path).items():
        (line,) = output.splitlines()
        assert code == 2 and line.startswith("error: flag --"), (case, output)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".txt"] == ["file.png"]
