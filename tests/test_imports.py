"""Imports point downwards only (the architecture, and what keeps reports free of jax and data free of TensorFlow)."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Part -> parts of the package that it may import from.
ALLOWED = {
    "files": set(),
    "errors": set(),
    "progress": set(),
    "quantizers": set(),
    "sampling": set(),
    "models": {"files", "quantizers"},
    "losses": {"models"},
    "data": {"files", "progress"},
    "metrics": {"files", "errors", "progress", "data", "models"},
    "visualization": {"files", "data", "metrics"},
    "tasks": {"files", "data", "losses", "metrics", "visualization"},
    "runtime": {"files", "errors", "data", "metrics"},
}
# What trains may use all of these; each of the following rooms may use those before it too.
for room in ("trainers", "factories", "inference", "evaluation", "experiments", "conversion"):
    ALLOWED[room] = set(ALLOWED)
ALLOWED |= {
    "profiling": set(ALLOWED) - {"conversion"},
    "sweeps": {"files", "errors", "runtime"},
    "reporting": {"files", "errors", "metrics"},  # of metrics only the table, see below
}


def imported(file: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{a.name}" for a in node.names}
    return names


@pytest.mark.parametrize("file", sorted((ROOT / "fsq_repro").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(file):
    part = file.relative_to(ROOT / "fsq_repro").with_suffix("").parts[0]
    if part == "__init__":
        return
    names = imported(file)
    ours = {n.split(".")[1] for n in names if n.startswith("fsq_repro.")}
    assert ours <= ALLOWED[part] | {part}
    assert not {n for n in names if n.split(".")[0] in ("configs", "scripts", "tests")}
    others = {n.split(".")[0] for n in names} - sys.stdlib_module_names - {"fsq_repro"}
    if part == "reporting":
        assert not {
            n for n in names if n.startswith("fsq_repro.metrics") and not n.startswith("fsq_repro.metrics.table")
        }
    if part == "reporting" or file == ROOT / "fsq_repro/metrics/table.py":
        assert not others & {"jax", "flax", "optax"}
    if part == "quantizers":  # used by themselves, these need no more than pyproject.toml's `dependencies`
        assert others <= {"jax", "flax", "numpy"}


def test_quantizers_bring_jax_and_flax_alone():
    """Not what the arrows cannot see either, such as a package that one of ours brings in."""
    tops = "{m.split('.')[0] for m in sys.modules}"
    theirs = f"import sys, flax.linen, flax.nnx, jax.numpy, jax.scipy.special; before = {tops}"
    ours = f"import fsq_repro.quantizers.nnx; print(*{tops} - before - sys.stdlib_module_names)"
    run = subprocess.run(
        [sys.executable, "-c", f"{theirs}; {ours}"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == ["fsq_repro"]


def test_few_rooms_know_config_dicts():
    users = {
        f.parent.name for f in (ROOT / "fsq_repro").rglob("*.py") if any("ml_collections" in n for n in imported(f))
    }

    assert users == {"factories", "inference", "experiments", "runtime", "profiling", "sweeps"}


def test_no_file_is_too_long():
    for file in [*ROOT.glob("fsq_repro/**/*.py"), *ROOT.glob("configs/**/*.py")]:
        assert len(file.read_text().splitlines()) <= 400, file
    for file in ROOT.glob("scripts/*.py"):
        assert len(file.read_text().splitlines()) < 100, file
