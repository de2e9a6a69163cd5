"""What a process does before it touches an array: logging, compilation cache, `jax.distributed`, CPU cores, memory."""

import ctypes
import gc
import importlib.metadata
import logging
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable

import jax

from fsq_repro.data.cache import cache_dir
from fsq_repro.runtime import processes

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scikit-image", "pillow")


MAX_CPU_DEVICES = 8
CPU_INFO = pathlib.Path("/proc/cpuinfo")  # of Linux
VECTOR_EXTENSIONS = ("amx_tile", "avx512_bf16", "avx512f", "avx2", "fma")  # as /proc/cpuinfo spells them


def start(batch_sizes: Iterable[int] = ()) -> None:
    """Logging, the persistent compilation cache and, for several processes, `processes.connect` with its errors.

    `batch_sizes` are those that the devices must share: see `_cpu_devices`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for noisy in ("absl", "orbax", "jax", "grain"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    for threaded in ("absl", "asyncio"):  # of orbax: errors of its threads, such as a full disk, are raised to us too
        logging.getLogger(threaded).addFilter(_without_traceback)
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_dir() / "xla")
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    collect_rarely()
    _keep_freed_memory()  # before there are threads
    processes.connect()
    chosen = jax.config.jax_num_cpu_devices > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen and not jax.distributed.is_initialized():
        jax.config.update("jax_num_cpu_devices", _cpu_devices(tuple(batch_sizes)))


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


def collect_rarely() -> None:
    """Lets Python look for cyclic garbage more rarely, and never among what has been imported.

    Tracing a step takes a fifth less time. No array waits for it: they are freed by counting references.
    """
    gc.freeze()
    gc.set_threshold(50_000)


def _cpu_devices(batch_sizes: tuple[int, ...]) -> int:
    """Devices that JAX shall see in place of the CPU: one per core, a power of two that divides all `batch_sizes`.

    XLA's threads share single operations, and leave convolutions with 64 channels and everything elementwise to one
    core. Several devices share the batch instead: steps of the autoencoder are 1.5 times as fast on two cores.
    JAX_NUM_CPU_DEVICES chooses another number. Each of several processes keeps one device.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = 1
    while 2 * devices <= min(cores, MAX_CPU_DEVICES) and not any(size % (2 * devices) for size in batch_sizes):
        devices *= 2
    return devices


def _keep_freed_memory() -> None:
    """Tells glibc to keep what XLA frees after a step, so that the kernel need not clear it for the next one.

    All threads must share one arena: others return large blocks whatever they are told. Steps of stage II on two cores
    are 1.4 times as fast. Does nothing with other C libraries.
    """
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # M_* of malloc.h
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
            mallopt(option, value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def git_revision() -> str:
    """Commit of the source tree, with "+changes" if it differs from it; "unknown" outside a git checkout."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(pathlib.Path(__file__).parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_description() -> str:
    """E.g. "2 x cpu (x86_64, 2 cores, AMD EPYC, avx512f avx2 fma)" or "8 x NVIDIA H100 80GB HBM3".

    Of a CPU the model and its vector extensions too: XLA sums in another order on another kind.
    """
    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return f"{jax.device_count()} x {kind}"
    facts = [platform.machine(), f"{os.cpu_count()} cores"]
    text = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    found = {key.strip(): value.strip() for key, _, value in lines}
    extensions = [name for name in VECTOR_EXTENSIONS if name in found.get("flags", "").split()]
    facts += [text for text in (found.get("model name"), " ".join(extensions)) if text]
    return f"{jax.device_count()} x cpu ({', '.join(facts)})"
