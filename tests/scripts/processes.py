"""Scripts in processes of their own, as a user calls them."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
JAX_ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # both as the fixture fast_compile
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
}

# A process that has imported what takes seconds and lives as long as the tests. Each line that it reads is a set of
# scripts, which it runs in forks of itself, two at a time, each with its output in a file; it answers with a line of
# exit codes. The source `scenes`, whose rooms take long to build, is `make_dense_noise`.
FORK_SERVER = """
import json, os, runpy, signal, sys
import jax
from fsq_repro.trainers import (
    experiments, label_predictor, stage1_evaluation, stage2_evaluation, uvim_evaluation, uvim_factory
)
from tests.tiny import make_dense_noise

jax.config.update("jax_num_cpu_devices", -1)  # as in a fresh process; the import of the tests has set both
jax.config.update("jax_numpy_rank_promotion", "allow")
opened = uvim_factory.make_dense_source
uvim_factory.make_dense_source = lambda task, name, *a, **k: (
    make_dense_noise if name == "scenes" else opened)(task, name, *a, **k)

def reap():
    pid, status = os.wait()
    codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)

for line in sys.stdin:
    request = json.loads(line)
    codes, running = {}, {}
    for name, (argv, log) in request["cases"].items():
        if len(running) == 2:
            reap()
        child = os.fork()
        if not child:
            signal.alarm(600)
            os.environ.update(request["environment"])
            output = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1), os.dup2(output, 2)
            sys.argv = argv
            runpy.run_path(argv[0], run_name="__main__")
            sys.exit(0)
        running[child] = name
    while running:
        reap()
    print(json.dumps(codes), flush=True)
"""


def command(script: str, *flags: str) -> list[str]:
    return [sys.executable, f"scripts/{script}.py", *flags]


def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    return os.environ | JAX_ENVIRONMENT | _folders(tmp_path)


def _folders(tmp_path: pathlib.Path) -> dict[str, str]:
    return {"FSQ_REPRO_CACHE": str(tmp_path / "cache"), "TFDS_DATA_DIR": str(tmp_path / "tfds")}


def start(arguments: list[str], env: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, timeout: float = 600) -> str:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out + err


@functools.cache
def _fork_server() -> subprocess.Popen:
    """One for all tests of this process; it ends with its input."""
    arguments = [sys.executable, "-c", FORK_SERVER]
    env = os.environ | JAX_ENVIRONMENT  # the folders come with each request
    server = subprocess.Popen(arguments, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def run_all(cases: dict[str, list[str]], tmp_path: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Name -> script and flags, run by `FORK_SERVER`; returns name -> exit code and output."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="logs", dir=tmp_path))
    logs = {name: folder / f"{i}.txt" for i, name in enumerate(cases)}
    request = {
        "cases": {name: (argv, str(logs[name])) for name, argv in cases.items()},
        "environment": _folders(tmp_path),
    }
    server = _fork_server()
    print(json.dumps(request), file=server.stdin, flush=True)
    answer = server.stdout.readline()
    assert answer, f"the fork server ended with code {server.wait()}"
    return {name: (code, logs[name].read_text()) for name, code in json.loads(answer).items()}


def run_script(arguments: list[str], tmp_path: pathlib.Path) -> str:
    """Output of a `command`, run by `FORK_SERVER`, which must succeed."""
    ((code, output),) = run_all({"script": arguments[1:]}, tmp_path).values()
    assert code == 0, output
    return output
