"""What a script does before it touches an array."""

import platform

import pytest

from tests.scripts.processes import run_all

# 64 MiB, freed and taken again, as by XLA from step to step; prints the pages that were new the second time.
SCRIPT = """
import gc, resource
from fsq_repro.runtime import startup

gc.unfreeze()
startup.start()
print("frozen", gc.get_freeze_count() > 10_000 and gc.get_threshold()[0])
size = 2**26  # no constant of the compiler's
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print("faults", faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_freed_memory_is_kept_on_cpu_and_garbage_rarely_looked_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code, output = run_all({"script": [str(script)]}, tmp_path)["script"]
    assert code == 0, output
    assert int(output.split("faults ")[1]) < 100  # of 16,384
    assert "frozen 50000\n" in output
