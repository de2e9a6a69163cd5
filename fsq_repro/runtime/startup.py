"""What a process does before it touches an array: logging, compilation cache, `jax.distributed`, memory."""

import ctypes
import gc
import importlib.metadata
import logging
import os
import pathlib
import platform
import subprocess

import jax

from fsq_repro.data.cache import cache_dir
from fsq_repro.runtime import processes

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scikit-image", "pillow")


def start() -> None:
    """Logging, the persistent compilation cache and, for several processes, `processes.connect` with its errors."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for noisy in ("absl", "orbax", "jax", "grain"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_dir() / "xla")
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    collect_rarely()
    processes.connect()
    if jax.default_backend() == "cpu":
        _keep_freed_memory()


def collect_rarely() -> None:
    """Lets Python look for cyclic garbage more rarely, and never among what has been imported.

    Tracing a step takes a fifth less time. No array waits for it: they are freed by counting references.
    """
    gc.freeze()
    gc.set_threshold(50_000)


def _keep_freed_memory() -> None:
    """Tells glibc to keep what XLA frees after a step, so that the kernel need not clear it for the next one.

    Steps of UViM at `scale=cpu` are 1.15 times as fast. Does nothing with other C libraries.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_* of malloc.h
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
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
    """E.g. "4 x cpu (x86_64, 2 cores)" or "8 x NVIDIA H100 80GB HBM3"."""
    kind = jax.devices()[0].device_kind
    cores = f" ({platform.machine()}, {os.cpu_count()} cores)" if kind == "cpu" else ""
    return f"{jax.device_count()} x {kind}{cores}"
