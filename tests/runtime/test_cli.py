"""How scripts end where a flag, a config file or the environment is wrong: one sentence, code 2, no traceback."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.scripts.processes import ROOT, RUN

# Calls the script of its arguments in a fork for each command line that it is told of, and prints [code, output] each.
FORKS = f"""{RUN}
import json
from absl import app
from ml_collections import config_flags
from fsq_repro.runtime import cli

for argv in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if not (pid := os.fork()):
        os.dup2(write, 1), os.dup2(write, 2)
        run(argv)
    os.close(write)
    output = os.fdopen(read, errors="replace").read()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output]))
"""

SCRIPT = """
from absl import flags
from ml_collections import config_flags
from fsq_repro.runtime import cli

config_flags.DEFINE_config_file("config", None, "FILE.py:ARG", lock_config=True)
flags.mark_flags_as_required(["config"])

def main():
    c = flags.FLAGS.config
    print(c.steps, c.levels, "\\u2713")

cli.run(main)
"""

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
    c = ConfigDict({"steps": 3, "levels": (8, 5), "optimizer": {"learning_rate": 0.5}})
    BODY
    return c
"""

FILES = {
    "good.py": CONFIG.replace("BODY", ""),
    "syntax.py": CONFIG.replace("BODY", "x = ("),
    "indent.py": CONFIG.replace("BODY", "x = 1\n  y = 2"),
    "name.py": CONFIG.replace("BODY", "c.steps = stepz"),
    "key.py": CONFIG.replace("BODY", "c.steps = {}['lr']"),
    "locked.py": CONFIG.replace("BODY", "c.lock(); c.optimizer.lr = 1"),
    "division.py": CONFIG.replace("BODY", "c.steps = 1 // 0"),
    "value.py": CONFIG.replace("BODY", "c.steps = int('x1')"),
    "type.py": CONFIG.replace("BODY", "c.steps = len(3)"),
    "import.py": "import no_such_package\n",
    "function.py": "x = 1\n",
    "nothing.py": "def get_config(arg=''): pass\n",
}
CASES = {  # command line -> words of the sentence
    "--config=goood.py": "the config file cannot be read: No such file or directory: 'goood.py'",
    "--config=good": "the config file cannot be read: No such file",
    "--config=.": "the config file cannot be read: Is a directory",
    "--config=": "the config file cannot be read: Path to config file is an empty string",
    "--config=goood.py --config.steps=4": "the config file cannot be read: No such file or directory: 'goood.py'",
    "--config=syntax.py": "syntax.py, line 6: '(' was never closed",
    "--config=indent.py": "indent.py, line 7: unindent does not match",
    "--config=name.py": "name.py, line 6: NameError: name 'stepz' is not defined",
    "--config=key.py": "key.py, line 6: KeyError: lr",
    "--config=locked.py": 'locked.py, line 6: AttributeError: \'Key "lr" does not exist',
    "--config=division.py": "division.py, line 6: ZeroDivisionError: ",
    "--config=value.py": "invalid literal for int() with base 10: 'x1'",
    "--config=type.py": "object of type 'int' has no len()",
    "--config=import.py": "import.py, line 1: ModuleNotFoundError: No module named 'no_such_package'",
    "--config=function.py": "has no attribute 'get_config'",
    "--config=nothing.py": "--config must have a value other than None",
    "--config=good.py --config.optimizer.lr=1": "--config.optimizer.lr is not a field of the config",
    "--config=good.py --config.optimizer.learningrate=1": 'not a field of the config; Did you mean "learning_rate"',
    "--config=good.py --config.optimiser.learning_rate=1": "--config.optimiser.learning_rate is not a field of the",
    "--config=good.py --config.steps.x=1": "--config.steps.x is not a field of the config",
    "--config=good.py --config.steps=1.5": "--config.steps=1.5: invalid literal",
    "--config=good.py --step=1": "Unknown command line flag 'step'",
    "--config=good.py run": "argument 'run' is not a flag",
    "": "--config must have a value other than None",
}
SAME_LEVELS = ("8,5,5", "(8,5,5)", "(8, 5, 5)", "[8,5,5]")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Command line -> exit code and output, all in an ASCII locale."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in {"scripts/script.py": SCRIPT, **FILES}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    good = ["--config=good.py", *(f"--config=good.py --config.levels={levels}" for levels in SAME_LEVELS)]
    lines = [*CASES, *good]
    # ", " within a value is no border between flags
    argv = [["scripts/script.py", *line.replace(", ", "\0").split()] for line in lines]
    argv = [[part.replace("\0", ", ") for part in parts] for parts in argv]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", FORKS, json.dumps(argv)]
    output = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(zip(lines, map(json.loads, output.splitlines()), strict=True))


@pytest.mark.parametrize("line", CASES)
def test_mistakes_are_told_in_one_sentence(results, line):
    code, output = results[line]
    assert code == 2 and "Traceback" not in output, output
    (sentence,) = [text for text in output.splitlines() if not text.startswith("W")]  # absl's own warning of None
    assert sentence.startswith("error: ") and CASES[line] in sentence


def test_a_tuple_needs_no_brackets_on_the_command_line_and_ascii_is_enough(results):
    assert results["--config=good.py"] == [0, "3 (8, 5) \\u2713\n"]
    for levels in SAME_LEVELS:
        assert results[f"--config=good.py --config.levels={levels}"] == [0, "3 (8, 5, 5) \\u2713\n"]


NO_DEVICE = "import jax; from fsq_repro.runtime import cli; cli.run(lambda: jax.devices() and None)"


@pytest.mark.parametrize("platforms", ["cuda", "no_such_platform"])
def test_a_platform_that_the_machine_has_not(tmp_path, platforms):
    if platforms == "cuda" and list(pathlib.Path("/dev").glob("nvidia*")):
        pytest.skip("this machine has a GPU")
    (tmp_path / "script.py").write_text(NO_DEVICE)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platforms}
    run = subprocess.run([sys.executable, tmp_path / "script.py"], env=environment, capture_output=True, text=True)
    assert run.returncode == 2
    assert (
        run.stderr == f"error: JAX_PLATFORMS = {platforms!r} names no device that JAX finds here; cpu is always there\n"
    )


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "module://no.such", "nonsense", ""])
def test_any_backend_of_matplotlib_may_be_set(backend):
    environment = os.environ | {"MPLBACKEND": backend}
    code = "import fsq_repro.reporting.drawing, fsq_repro.visualization.dense_pictures"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
