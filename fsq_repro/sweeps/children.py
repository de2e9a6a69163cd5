"""The scripts that a sweep runs on this machine; a signal that ends the sweep ends them first."""

import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType


class Children:
    """Runs scripts, from any thread. Inside `with`, SIGTERM and SIGINT go to them all, and no other is started.

    `stopped` is whether a signal came. A training that is told to stop saves first.
    """

    def __enter__(self) -> "Children":
        self.stopped = False
        self._running: set[subprocess.Popen] = set()
        self._previous = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for s, handler in self._previous.items():
            signal.signal(s, handler)

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.stopped = True
        for process in list(self._running):
            process.terminate()

    def run(
        self, command: Sequence[str], cwd: pathlib.Path, log_file: pathlib.Path, environment: dict, prefix: str
    ) -> bool:
        """Whether a script ends well; its output goes to the terminal, each line behind `prefix`, and to `log_file`."""
        if self.stopped:
            return False
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "bufsize": 1}
        process = subprocess.Popen([sys.executable, *command], cwd=cwd, env=environment, **pipes)
        self._running.add(process)
        if self.stopped:  # it came meanwhile
            process.terminate()
        with open(log_file, "a") as log:
            for line in process.stdout:
                print(prefix + line, end="", flush=True)
                log.write(line)
        code = process.wait()
        self._running.discard(process)
        return code == 0
