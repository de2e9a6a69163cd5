"""Scripts in processes of their own, as a user calls them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Runs scripts in forks of one process that has imported what takes seconds, each with its output in a file. The source
# `scenes`, whose rooms take long to build, is `make_dense_noise`. Answers a script with its process id, a process id
# with its exit code or null.
FORKS = """
import json, os, runpy, sys
import jax
from fsq_repro.trainers import experiments, label_predictor, uvim_evaluation, uvim_factory
from tests.tiny import make_dense_noise

opened = uvim_factory.make_dense_source
uvim_factory.make_dense_source = lambda task, name, *a, **k: (
    make_dense_noise if name == "scenes" else opened)(task, name, *a, **k)

jax.config.update("jax_num_cpu_devices", int(os.environ.get("JAX_NUM_CPU_DEVICES", 4)))
for line in sys.stdin:
    request = json.loads(line)
    if isinstance(request, int):
        pid, status = os.waitpid(request, os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    sys.argv, environment, log = request
    child = os.fork()
    if not child:
        os.environ.update(environment)
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit(0)
    print(child, flush=True)
"""


class Forks:
    """Scripts in forks of one process, see `FORKS`; a context manager, after which none is left."""

    def __init__(self, env: dict[str, str]):
        pipe = subprocess.PIPE
        self._server = subprocess.Popen([sys.executable, "-c", FORKS], cwd=ROOT, env=env, stdin=pipe, stdout=pipe)
        self._running = set()

    def __enter__(self) -> "Forks":
        return self

    def _ask(self, request: object) -> int | None:
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, argv: list[str], log: pathlib.Path, **environment: str) -> int:
        """Script and flags -> process id."""
        pid = self._ask((argv, environment, str(log)))
        self._running.add(pid)
        return pid

    def poll(self, pid: int) -> int | None:
        """Exit code, None while it runs; to be asked no more after that."""
        code = self._ask(pid)
        if code is not None:
            self._running.remove(pid)
        return code

    def wait(self, pid: int, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll(pid)) is None:
            assert time.monotonic() < deadline, f"still running after {timeout} s"
            time.sleep(0.02)
        return code

    def __exit__(self, *_: object) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()


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
    """Name -> script and flags, run by `Forks` two at a time; returns name -> exit code and output."""
    tmp_path.joinpath("logs").mkdir()
    codes, running = {}, {}
    with Forks(environment(tmp_path) | {"TFDS_DATA_DIR": str(tmp_path / "tfds")}) as forks:
        for i, (name, argv) in enumerate(cases.items()):
            if len(running) == 2:
                first = next(iter(running))
                codes[first] = forks.wait(running.pop(first))
            running[name] = forks.start(argv, tmp_path / "logs" / f"{i}.txt")
        codes |= {name: forks.wait(pid) for name, pid in running.items()}
    return {name: (codes[name], (tmp_path / "logs" / f"{i}.txt").read_text()) for i, name in enumerate(cases)}
