import resource

import numpy as np
import pytest

from fsq_repro.runtime import startup


def test_freed_memory_is_kept():
    """Arrays of 64 MiB, freed and made again, as XLA's are from step to step: the second needs no new pages."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**23)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    if not startup.keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    faults()
    assert faults() < 50  # of 544 with huge pages, 16,384 without
