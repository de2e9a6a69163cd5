"""What a script does before it touches an array."""

import os
import platform
import subprocess
import sys

import pytest

from fsq_repro.runtime import startup
from tests.scripts.processes import ROOT, run_all

# 64 MiB, freed and taken again by a thread, as by XLA's from step to step; prints how many pages were new again.
SCRIPT = """
import concurrent.futures, gc, resource
from fsq_repro.runtime import startup

gc.unfreeze()
startup.start()
print("frozen", gc.get_freeze_count() > 10_000 and gc.get_threshold()[0])
size = 2**26  # no constant of the compiler's
def take():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    faults = [pool.submit(take).result() for _ in range(2)]
print("faults", faults[1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_freed_memory_is_kept_on_cpu_and_garbage_rarely_looked_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code, output = run_all({"script": [str(script)]}, tmp_path)["script"]
    assert code == 0, output
    assert int(output.split("faults ")[1]) < 100  # of 16,384
    assert "frozen 50000\n" in output


@pytest.mark.parametrize(
    "cores, sizes, devices",
    [(1, (64, 128), 1), (2, (64, 128), 2), (2, (64, 33), 1), (6, (), 4), (64, (1024,), 8), (8, (12, 64), 4)],
)
def test_one_cpu_device_per_core_as_far_as_the_batches_allow(monkeypatch, cores, sizes, devices):
    monkeypatch.setattr(startup.os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert startup._cpu_devices(sizes) == devices


def test_a_cpu_is_named_with_its_vector_extensions(monkeypatch, tmp_path):
    text = "processor\t: 0\nmodel name\t: Some CPU 3000\nflags\t\t: fpu avx2 sse avx512f fma\n"
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(startup, "CPU_INFO", tmp_path / "cpuinfo")
    assert startup.device_description().endswith("cores, Some CPU 3000, avx512f avx2 fma)")


@pytest.mark.parametrize("variables, devices", [({}, 2), ({"JAX_NUM_CPU_DEVICES": "3"}, 3)])
def test_the_environment_chooses_the_number_of_cpu_devices(variables, devices):
    code = "import os; os.sched_getaffinity = lambda _: range(2)\nimport jax\nfrom fsq_repro.runtime import startup\n"
    code += "startup.start((8,)); print(jax.device_count())"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | variables
    output = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert output.stdout.split() == [str(devices)], output.stderr
