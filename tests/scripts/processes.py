"""Scripts in processes of their own, as a user calls them."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
JAX_ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",  # on any machine
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as conftest.py, whose XLA_FLAGS are inherited
}

# Source of a function that runs a script and ends this process as a script does.
RUN = """
import atexit, os, runpy, sys, threading

def run(argv):
    sys.argv, code = argv, 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as e:
        code = e.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code or 0)
"""

# A process that has imported what takes seconds and lives as long as the tests. It runs each script that it is told of
# in a fork of itself, with its output in a file, and answers with the fork's process id; a process id it answers with
# the exit code or null. The source `scenes`, whose rooms take long to build, is `make_dense_noise`. A fork ends as a
# process does, but leaves its memory to the kernel: Python would take a second to free what has been imported.
FORK_SERVER = (
    """
import gc, json, signal
import jax
from fsq_repro.experiments import experiment
from fsq_repro.inference import label_predictor
from fsq_repro.evaluation import autoencoder, maskgit, uvim
from fsq_repro.factories import label_autoencoder as label_autoencoder_factory
from tests.tiny import make_dense_noise

jax.config.update("jax_numpy_rank_promotion", "allow")  # as in a fresh process; the import of the tests has set it
opened = label_autoencoder_factory.make_dense_source
label_autoencoder_factory.make_dense_source = lambda labels, name, *a, **k: (
    make_dense_noise if name == "scenes" else opened)(labels, name, *a, **k)

"""
    + RUN
    + """
gc.freeze()
for line in sys.stdin:
    request = json.loads(line)
    if isinstance(request, int):
        pid, status = os.waitpid(request, os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    child = os.fork()
    if not child:
        signal.alarm(600)
        os.environ.update(request["environment"])
        jax.config.update("jax_num_cpu_devices", request["devices"])
        output = os.open(request["log"], os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        run(request["argv"])
    print(child, flush=True)
"""
)


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


def _ask(request: object) -> int | None:
    server = _fork_server()
    print(json.dumps(request), file=server.stdin, flush=True)
    answer = server.stdout.readline()
    assert answer, f"the fork server ended with code {server.wait()}"
    return json.loads(answer)


class Fork:
    """A script and its flags in a fork of `FORK_SERVER`; it ends after 10 minutes at the latest."""

    def __init__(self, argv: list[str], tmp_path: pathlib.Path, *, devices: int = 1, **env: str):
        descriptor, log = tempfile.mkstemp(suffix=".txt", dir=tmp_path)
        os.close(descriptor)
        self._log, self._code = pathlib.Path(log), None
        self.pid = _ask({"argv": argv, "log": log, "environment": _folders(tmp_path) | env, "devices": devices})

    def output(self) -> str:
        """Stdout and stderr so far."""
        return self._log.read_text()

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        if self._code is None:
            self._code = _ask(self.pid)
        return self._code

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.02)
        return code


def run_all(cases: dict[str, list[str]], tmp_path: pathlib.Path, *, devices: int = 1) -> dict[str, tuple[int, str]]:
    """Name -> script and flags, run in forks two at a time; returns name -> exit code and output."""
    forks = {}
    for name, argv in cases.items():
        if len(forks) > 1:
            list(forks.values())[-2].wait()
        forks[name] = Fork(argv, tmp_path, devices=devices)
    return {name: (fork.wait(), fork.output()) for name, fork in forks.items()}


def run_script(arguments: list[str], tmp_path: pathlib.Path) -> str:
    """Output of a `command`, run in a fork, which must succeed."""
    ((code, output),) = run_all({"script": arguments[1:]}, tmp_path).values()
    assert code == 0, output
    return output
