"""Tiny but real trainings that are interrupted again and again: they must end as if nothing had happened.

Each kind is trained once without an interruption. Then the same command gets SIGKILL, or SIGTERM, at a random moment
and is started again, in one run directory after the other, until it was interrupted so often as asked for. Each run
must end with the arrays, the position in the data, the lines of metrics.jsonl and the pictures of the unbroken one, bit
by bit. Only times may differ.
"""

import collections
import dataclasses
import itertools
import json
import logging
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

log = logging.getLogger(__name__)

ROOT = pathlib.Path(__file__).resolve().parents[2]
MILESTONES = (("parameters:", "resumed from step"), ("compiled the step",))  # where compiling begins and ends
PHASES = ("start", "compilation", "step", "save", "evaluation")
TIMES = ("images_per_second", "data_wait")  # of a line of metrics.jsonl
CHECKPOINT_EVERY, EVAL_EVERY, STEPS = 5, 10, 40
STUCK_S = 600  # no training here takes so long
INTERRUPTED = 130  # exit code after SIGTERM

SCHEDULE = {
    "steps": STEPS,
    "batch_size": 8,
    "log_every": 1,
    "eval_every": EVAL_EVERY,
    "checkpoint_every": CHECKPOINT_EVERY,
    "data.resolution": 16,
    "eval.batch_size": 8,
    "optimizer.warmup_steps": 2,
}
AUTOENCODER = {"model.channel_multipliers": (1,), "loss.perceptual": 0.0}
GENERATOR = {"model.width": 16, "model.num_layers": 1, "model.num_heads": 2, "model.mlp_width": 32}
UVIM = {"model.num_heads": 2, "model.mlp_width": 32, "task.bins": 8, "eval.baseline_images": 16}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is trained: a config file with its argument, fields that differ, and the kind whose run is its stage I."""

    config: str
    fields: dict[str, Any]
    stage1: str = ""


KINDS = {
    "autoencoder": Kind("tradeoff_autoencoder.py:quantizer=fsq,bits=6,scale=smoke", AUTOENCODER),
    "ema_vq": Kind(
        "tradeoff_autoencoder.py:quantizer=ema_vq,bits=6,scale=smoke", AUTOENCODER | {"quantizer.embedding_dim": 8}
    ),
    "maskgit": Kind("tradeoff_maskgit.py:quantizer=fsq,bits=6,scale=smoke", GENERATOR, "autoencoder"),
    "uvim_stage1": Kind("uvim_depth.py:stage=1,quantizer=vq,scale=smoke", UVIM | {"quantizer.embedding_dim": 8}),
    "uvim_stage2": Kind(
        "uvim_depth.py:stage=2,quantizer=vq,scale=smoke", UVIM | {"quantizer.embedding_dim": 8}, "uvim_stage1"
    ),
}


@dataclasses.dataclass
class Row:
    """What was done to the runs of a kind and what came of it; `problem` is "" where all ended as the unbroken one."""

    kind: str
    by: str
    during: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # phase -> interruptions
    runs: int = 0
    resumes: int = 0  # from a checkpoint; the other starts found none yet
    problem: str = ""
    note: str = ""  # why nothing was done


class Training:
    """A command that trains in a process of its own; its output is appended to a file beside the run directory."""

    def __init__(self, kind: str, folder: pathlib.Path, run: pathlib.Path):
        self.run, self._log = run, folder / f"{kind}.{run.name}.log"
        stage1 = {"stage1": unbroken_run(KINDS[kind].stage1, folder)} if KINDS[kind].stage1 else {}
        fields = SCHEDULE | KINDS[kind].fields | stage1
        command = [sys.executable, "scripts/train.py", f"--config=configs/{KINDS[kind].config}", f"--workdir={run}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
        self._seen = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        self._started = time.monotonic()

    @property
    def output(self) -> str:
        """Of this process alone."""
        return self._log.read_bytes()[self._seen :].decode(errors="replace")

    def wait_for(self, *texts: str) -> None:
        """Until one of the texts is printed, or the process has ended."""
        while self.process.poll() is None and not any(text in self.output for text in texts):
            if time.monotonic() - self._started > STUCK_S:
                self.process.kill()
                raise TimeoutError(f"{self._log} has none of {texts} after {STUCK_S} s")
            time.sleep(0.01)

    def end(self) -> int:
        """Waits for the process; its exit code, negative for a signal."""
        try:
            return self.process.wait(STUCK_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def last_line(self) -> str:
        return self.output.strip().rpartition("\n")[2]


def unbroken_run(kind: str, folder: pathlib.Path) -> pathlib.Path:
    return folder / kind / "unbroken"


def phase(output: str, run: pathlib.Path) -> str:
    """What a training was doing when it was killed, by its output and the files that it left."""
    for texts, before in zip(MILESTONES, PHASES, strict=False):
        if not any(text in output for text in texts):
            return before
    if list((run / "checkpoints").glob("*.orbax-checkpoint-tmp")):
        return "save"
    steps = [int(step) for step in re.findall(r"step (\d+)/", output)]
    checked = f"step {steps[-1]}  validation/" in output if steps else True
    saved = bool(steps) and (run / "checkpoints" / str(steps[-1])).exists()
    if saved and steps[-1] % EVAL_EVERY == 0 and not checked:
        return "evaluation"
    return "step"


def final_state(run: pathlib.Path) -> dict[str, Any]:
    """{what it is, in words: value} of all that must be the same at the end of a run."""
    checkpoint = max((p for p in (run / "checkpoints").iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
    found: dict[str, Any] = {"last checkpoint": checkpoint.name}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [f"{line['step']} checked" if _is_check(line) else str(line["step"]) for line in lines]
    found["steps of metrics.jsonl"] = steps
    for step, line in zip(steps, lines, strict=True):
        found[f"line of step {step} in metrics.jsonl"] = {k: v for k, v in line.items() if k not in TIMES}
    with warnings.catch_warnings(action="ignore"):  # of orbax: that it was not told where to put the arrays
        tree = ocp.PyTreeCheckpointer().restore(checkpoint / "state")
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        x = np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        found[f"array {jax.tree_util.keystr(path)}"] = (x.shape, x.dtype.name, x.tobytes())
    for file in (checkpoint / "data").glob("*.json"):
        found[f"data position {file.name}"] = file.read_text()
    found |= {f"picture {file.name}": file.read_bytes() for file in (run / "samples").glob("[!.]*.png")}
    record = json.loads((run / "record.json").read_text())
    return found | {f"{name} in record.json": record.get(name) for name in ("status", "steps", "validation")}


def _is_check(line: dict[str, float]) -> bool:
    return any(name.startswith("validation/") for name in line)


def difference(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    """The first thing in which two final states differ, "" if there is none."""
    for name in [*wanted, *found]:
        if name not in found:
            return f"no {name}"
        if name not in wanted:
            return f"a surplus {name}"
        if wanted[name] != found[name]:
            shown = "" if name.startswith(("array", "picture")) else f": {found[name]}, unbroken {wanted[name]}"
            return f"another {name}{shown}"
    return ""


class Torture:
    """Interrupts trainings in a folder, at moments drawn from a seed."""

    def __init__(self, folder: pathlib.Path, seed: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._random = folder, random.Random(seed)
        self._unbroken: dict[str, tuple[dict[str, Any], list[float]]] = {}
        self._runs = 0

    def unbroken(self, kind: str) -> tuple[dict[str, Any], list[float]]:
        """Final state of the unbroken run, and the seconds that it took to start, to compile, and from then on."""
        if kind in self._unbroken:
            return self._unbroken[kind]
        if KINDS[kind].stage1:
            self.unbroken(KINDS[kind].stage1)
        for name in ("cold", "unbroken"):  # the first one compiles, and makes the data
            training = Training(kind, self._folder, self._folder / kind / name)
            times = [time.monotonic()]
            for texts in MILESTONES:
                training.wait_for(*texts)
                times.append(time.monotonic())
            if training.end():
                raise RuntimeError(f"{kind} could not be trained: {training.last_line()}")
            times.append(time.monotonic())
        seconds = [after - before for before, after in itertools.pairwise(times)]
        log.info("%s: %.1f s to start, %.1f s to compile, %.1f s to train", kind, *seconds)
        self._unbroken[kind] = final_state(training.run), seconds
        return self._unbroken[kind]

    def interrupt(self, kind: str, number: signal.Signals, count: int) -> Row:
        """Interrupts runs of a kind so often with a signal."""
        wanted, seconds = self.unbroken(kind)
        row = Row(kind, number.name)
        while row.during.total() < count and not row.problem:
            self._runs += 1
            run = self._folder / kind / f"run{self._runs}"
            row.runs += 1
            while row.during.total() < count:
                training = Training(kind, self._folder, run)
                self._wait(training, *seconds)
                training.process.send_signal(number)
                code = training.end()
                row.resumes += "resumed from step" in training.output
                if code == 0:  # it was faster
                    break
                row.during[phase(training.output, run)] += 1
                expected = (-number, INTERRUPTED) if number is signal.SIGTERM else (-number,)
                if code not in expected or (code != -number and "was saved" not in training.output):
                    row.problem = f"exit code {code}: {training.last_line()}"
                    return row
            else:
                training = Training(kind, self._folder, run)
                if code := training.end():
                    row.problem = f"exit code {code}: {training.last_line()}"
                    return row
                row.resumes += "resumed from step" in training.output
            row.problem = difference(wanted, final_state(run))
            log.info("%s, %s: %s %s", run, number.name, dict(row.during), row.problem or "equal")
        return row

    def _wait(self, training: Training, start_s: float, compile_s: float, train_s: float) -> None:
        """Until a random moment: of starting or compiling once in eight each, else of the next half of training."""
        moments = (((), start_s), (MILESTONES[:1], compile_s), (MILESTONES[1:], train_s / 2))
        ((passed, longest),) = self._random.choices(moments, weights=(1, 1, 6))
        for texts in passed:
            training.wait_for(*texts)
        until = time.monotonic() + self._random.uniform(0, longest)
        while training.process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
