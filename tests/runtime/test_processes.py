"""Which processes belong together, by the environment alone: nothing here opens a connection."""

import os
import signal

import jax
import pytest

from fsq_repro.errors import UserError
from fsq_repro.runtime import processes
from fsq_repro.runtime.processes import StopSignal

SLURM = {  # of a task of two on two nodes, as srun sets it
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
TOLD = {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_PROCESS_ID": "1"}


@pytest.fixture
def connected(monkeypatch):
    """Connects in an environment; returns what `jax.distributed` was asked for, and the settings changed after it."""

    def connect(environment: dict[str, str]) -> tuple[list, dict]:
        calls, settings = [], {}
        for name in [k for k in os.environ if k.startswith(("JAX_", "SLURM_", "OMPI_", "KUBERNETES_", "JOB_"))]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: calls.append((args, options)))
        monkeypatch.setattr(jax.config, "update", settings.__setitem__)
        monkeypatch.setattr(processes, "_last_words", lambda sentence: None)
        monkeypatch.setattr(processes.sys, "excepthook", None)
        processes.connect()
        return calls, settings

    return connect


@pytest.mark.parametrize(
    "environment",
    [
        {},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1"},
        SLURM | {"JAX_NUM_PROCESSES": "1"},
        OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # a pod of no indexed Job
        TOLD | {"JAX_NUM_PROCESSES": "1"},
    ],
)
def test_a_single_process_is_left_alone(connected, environment):
    assert connected(environment) == ([], {})


@pytest.mark.parametrize(
    ("environment", "args", "all_devices"),
    [
        (SLURM, (None, None, None), True),
        (SLURM | {"SLURM_NTASKS": "4"}, (None, None, None), False),  # two on each node: a GPU each
        (OPEN_MPI, (None, None, None), False),
        (TOLD, ("localhost:1", 2, 1), False),
        (TOLD | OPEN_MPI, ("localhost:1", 2, 1), False),
    ],
)
def test_several_processes_are_connected(connected, environment, args, all_devices):
    ((found, options),), settings = connected(environment)
    assert found == args
    assert options["heartbeat_timeout_seconds"] + 5 <= 30 and options["shutdown_timeout_seconds"] <= 30
    expected = {f"jax_{platform}_visible_devices": "all" for platform in ("cuda", "rocm")}
    assert settings == (expected if all_devices else {})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (SLURM, "all 2 processes of the run, which SLURM_NTASKS = 2 announces"),  # also of a shell of `srun --pty`
        (OPEN_MPI, "all 4 processes of the run, which OMPI_COMM_WORLD_SIZE = 4 announces"),
        (TOLD | SLURM, "all 2 processes of the run, which JAX_NUM_PROCESSES = 2 announces"),
    ],
)
def test_what_is_waited_for_is_said_before(connected, monkeypatch, environment, words):
    said = []
    monkeypatch.setattr(processes.log, "info", lambda text, *values: said.append(text % values))
    ((_, options),), _ = connected(environment)
    (sentence,) = said
    assert words in sentence and f"up to {options['initialization_timeout']} s" in sentence
    assert sentence.endswith("; JAX_NUM_PROCESSES=1 makes this one a run by itself")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES = 'two' must be a whole number of at least 1"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES = '0'"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS"),
        (TOLD | {"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID in 0 .. 1, which is 2"),
        (TOLD | {"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID = '' must be a whole number of at least 0"),
        (SLURM | {"SLURM_NTASKS": "many"}, "asking the cluster for the processes of the run failed"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(connected, environment, words):
    with pytest.raises(UserError) as e:
        connected(environment)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_a_signal_is_noted_and_handlers_come_back():
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    for number in (signal.SIGTERM, signal.SIGINT):
        with StopSignal() as stop:
            assert not stop.requested()
            os.kill(os.getpid(), number)
            assert stop.requested() and stop.requested()
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
