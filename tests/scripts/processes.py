"""Scripts in processes of their own, as a user calls them."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Runs scripts in forks of one process that has imported what takes seconds, two at a time, each with its output in a
# file. The source `scenes`, whose rooms take long to build, is `make_dense_noise`.
FORKS = """
import json, os, runpy, sys
from fsq_repro.trainers import experiments, label_predictor, uvim_evaluation, uvim_factory
from tests.tiny import make_dense_noise

opened = uvim_factory.make_dense_source
uvim_factory.make_dense_source = lambda task, name, *a, **k: (
    make_dense_noise if name == "scenes" else opened)(task, name, *a, **k)
codes, running = {}, {}

def reap():
    pid, status = os.wait()
    codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)

for name, (argv, log) in json.load(sys.stdin).items():
    if len(running) == 2:
        reap()
    child = os.fork()
    if not child:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")
        sys.exit(0)
    running[child] = name
while running:
    reap()
print(json.dumps(codes))
"""


def command(script: str, *flags: str) -> list[str]:
    return [sys.executable, f"scripts/{script}.py", *flags]


def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    return os.environ | {
        "FSQ_REPRO_CACHE": str(tmp_path / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as the fixture fast_compile
    }


def start(arguments: list[str], env: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, timeout: float = 180) -> str:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out + err


def run_all(cases: dict[str, list[str]], tmp_path: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Name -> script and flags, run by `FORKS`; returns name -> exit code and output."""
    tmp_path.joinpath("logs").mkdir()
    logs = {name: tmp_path / "logs" / f"{i}.txt" for i, name in enumerate(cases)}
    result = subprocess.run(
        [sys.executable, "-c", FORKS],
        cwd=ROOT,
        env=environment(tmp_path) | {"TFDS_DATA_DIR": str(tmp_path / "tfds")},
        input=json.dumps({name: (argv, str(logs[name])) for name, argv in cases.items()}),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return {name: (code, logs[name].read_text()) for name, code in json.loads(result.stdout).items()}
