"""What `pip install` gives, and that scripts find the configs of their checkout, which it does not install."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read_requirements(file: str) -> dict[str, str]:
    """Name -> pinned version."""
    lines = (ROOT / file).read_text().splitlines()
    return dict(re.match(r"([\w-]+)==([\w.]+)", line).groups() for line in lines if re.match(r"\w", line))


def test_scripts_find_their_configs_from_another_folder(tmp_path):
    """Only the package is on the path, as after `make setup`; this config imports another."""
    (tmp_path / "fsq_repro").symlink_to(ROOT / "fsq_repro")
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts/train.py",
            f"--config={ROOT}/configs/imagenet256_autoencoder.py:scale=smoke",
            "--config.no_such_field=1",
            "--workdir=run",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no_such_field" in done.stderr, done.stderr


def test_the_pinned_versions_are_allowed():
    """Each pinned requirement is declared in pyproject.toml, for a range that has the pinned version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared: dict[str, list[Requirement]] = {}
    for text in sum(project["optional-dependencies"].values(), project["dependencies"]):
        requirement = Requirement(text)
        declared.setdefault(requirement.name, []).append(requirement)
    pinned = {
        name: version
        for file in ("requirements.txt", "requirements-dev.txt", "requirements-tfds.txt")
        for name, version in read_requirements(file).items()
    }
    assert pinned.keys() - {"jaxlib"} == declared.keys() - {"fsq_repro"}  # jax brings jaxlib
    for name, version in pinned.items():
        for requirement in declared.get(name, []):
            assert version in requirement.specifier, requirement


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(tmp_path):
    """`pip install .` without extras: FSQ runs, and no top-level package but ours is installed."""
    checkout, environment = tmp_path / "checkout", tmp_path / "venv"
    left_out = shutil.ignore_patterns(".*", "build", "runs", "results", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    python = environment / "bin" / "python"
    code = """
import importlib.metadata, importlib.util
import jax
from fsq_repro.quantizers import FSQ
import fsq_repro
z = jax.numpy.linspace(-2, 2, 8).reshape(4, 2)
print(FSQ((8, 5)).apply({}, z, train=False).indices.tolist())
installed = importlib.metadata.distribution("fsq_repro")
top_level = {file.parts[0] for file in installed.files}
print([name for name in top_level if not name.endswith(".dist-info")], installed.version == fsq_repro.__version__)
print(importlib.util.find_spec("configs"), importlib.util.find_spec("skimage"))
"""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (
        [sys.executable, "-m", "venv", environment],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", checkout],
    ):
        subprocess.run(command, cwd=tmp_path, env=clean, check=True)
    done = subprocess.run([python, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    indices, packages, others = done.stdout.splitlines()
    assert indices == "[0, 9, 29, 39]"
    assert packages == "['fsq_repro'] True"
    assert others == "None None"
