"""Several processes of one run: how they find each other, what becomes of them when one dies, how all stop together.

A single process does nothing of this and opens no connection. Several are connected by `jax.distributed`, whose first
process watches over all. If one dies, JAX ends the others: after `HEARTBEAT_S`, or at once where it was the first.
"""

import ctypes
import logging
import os
import signal
import sys
import time
from types import TracebackType
from typing import Any

import jax
from jax._src.clusters import ClusterEnv, K8sCluster  # JAX has no public way to ask what it would detect
from jax.experimental import multihost_utils

from fsq_repro.errors import UserError

log = logging.getLogger(__name__)

HEARTBEAT_S = 20  # a process that was not heard of for so long is dead
START_S = 300  # in which all processes must have started


def connect() -> None:
    """Connects this process with the others of its run, if there are others.

    JAX_NUM_PROCESSES, JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID say so, in this order of strength over what JAX finds
    by itself: SLURM (srun), Open MPI, TPU pods, and indexed Jobs of Kubernetes (with its Python package).
    JAX_NUM_PROCESSES=1 is a process by itself wherever it runs. UserError for a variable with a bad value or without
    its companions, and for a cluster that JAX cannot read.
    """
    told = "JAX_NUM_PROCESSES" in os.environ
    processes = _whole_number("JAX_NUM_PROCESSES", 1) if told else _detected_processes()
    if processes == 1:
        return
    address = process = None
    if told:
        address, process = os.environ.get("JAX_COORDINATOR_ADDRESS"), _whole_number("JAX_PROCESS_ID", 0)
        if not address or process >= processes:
            raise UserError(
                f"JAX_NUM_PROCESSES = {processes} needs JAX_COORDINATOR_ADDRESS, the first one's HOST:PORT, which is "
                f"{address!r}, and JAX_PROCESS_ID in 0 .. {processes - 1}, which is {process}"
            )
    alone = "JAX_NUM_PROCESSES=1 makes this one a run by itself"
    log.info("waiting up to %d s for all %d processes of the run, which %s; %s", START_S, processes, _who_says(), alone)
    _last_words(f"the {processes} processes of the run did not all find each other within {START_S} s; {alone}")
    try:
        jax.distributed.initialize(
            address,
            processes if told else None,
            process,
            initialization_timeout=START_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as e:
        raise UserError(f"the processes of the run cannot be connected: {' '.join(str(e).split())}") from e
    nodes = os.environ.get("SLURM_STEP_NUM_NODES")
    if os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1" or (nodes and nodes == os.environ.get("SLURM_NTASKS")):
        # JAX gives each task of SLURM and Open MPI one GPU, also where a node has a single task and several GPUs.
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", os.environ.get("JAX_LOCAL_DEVICE_IDS", "all"))
    _last_words(
        f"JAX ended this process, one of {processes}, for the reason above, most likely that another process died; the "
        "same command, started again for all, resumes from the last checkpoint"
    )
    sys.excepthook = _wait_for_the_cause


def _who_says() -> str:
    """Where the number of processes comes from: an interactive shell may have a job's variables and be alone."""
    variables = ("JAX_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    told = next((name for name in variables if name in os.environ), None)
    return f"{told} = {os.environ[told]} announces" if told else "the cluster announces"


def _whole_number(variable: str, least: int) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{variable} = {text!r} must be a whole number of at least {least}")
    return int(text)


def _detected_processes() -> int:
    indexed = "JOB_COMPLETION_INDEX" in os.environ  # other pods are no processes of a run, and may not ask Kubernetes
    kinds = [k for k in ClusterEnv._cluster_types if not k.opt_in_only_method and (indexed or k is not K8sCluster)]
    try:
        found = next((kind for kind in kinds if kind.is_env_present()), None)
        return found.get_process_count() if found else 1
    except Exception as e:  # of a cluster's own client
        raise UserError(
            f"JAX_NUM_PROCESSES is not set, and asking the cluster for the processes of the run failed: "
            f"{' '.join(str(e).split())}; JAX_NUM_PROCESSES=1 is a process by itself"
        ) from e


_on_abort: Any = None  # C calls it: it must live on


def _last_words(sentence: str) -> None:
    """What is printed when JAX ends this process, which it does from C++ by `abort`, after a page of its own words.

    Python's own signal handlers would not run then: they wait for the interpreter, to which `abort` does not return.
    """
    global _on_abort

    def leave(_: int) -> None:
        os.write(2, f"error: {sentence}\n".encode())
        os._exit(1)

    _on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(leave)
    ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)


def _wait_for_the_cause(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """An error of JAX may be the echo of another process's death: if it is, this process is ended while it waits."""
    if issubclass(kind, jax.errors.JaxRuntimeError):
        time.sleep(HEARTBEAT_S + 5)
    sys.__excepthook__(kind, error, traceback)


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the loop can save and leave at the end of a step.

    Several processes leave after the same step, whichever the signal reached and whenever: JAX's preemption service,
    which SIGTERM belongs to then, agrees in the background on the first step that none has gone past.
    """

    def __enter__(self) -> "StopSignal":
        self._noted, self._calls = False, 0
        handlers = {signal.SIGTERM: self._note, signal.SIGINT: self._note}
        if jax.process_count() > 1:
            handlers = {signal.SIGINT: self._pass_on}
        self._previous = {s: signal.signal(s, handler) for s, handler in handlers.items()}
        return self

    def requested(self) -> bool:
        """Whether to save and leave now; to be called once a step, by all processes."""
        # Steps are counted from the start of the process, as the service does: a signal may come before the first.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls) or self._noted

    def _note(self, *_: Any) -> None:
        self._noted = True

    def _pass_on(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_: Any) -> None:
        for s, handler in self._previous.items():
            signal.signal(s, handler)
