"""The benchmark of the quantizers, at tiny sizes, and its peer as a process that stands in for the package."""

import sys

import pytest

from fsq_repro.errors import UserError
from fsq_repro.profiling import benchmark_quantizers
from fsq_repro.quantizers import make_quantizer

TINY = {
    "fsq": ("fsq", {"levels": (5, 3)}),
    "vq": ("vq", {"codebook_size": 8, "embedding_dim": 4}),
    "ema": ("ema_vq", {"codebook_size": 8, "embedding_dim": 4}),
}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(benchmark_quantizers, "CASES", TINY)
    monkeypatch.setattr(benchmark_quantizers, "matrix_rate", lambda n: 1e9)
    monkeypatch.setattr(benchmark_quantizers, "PEER", "import sys\nfor line in sys.stdin: print(1.5, flush=True)")


def test_what_is_measured_exists():
    for name, fields in benchmark_quantizers.CASES.values():
        assert make_quantizer(name, **fields).codebook_size >= 1000


@pytest.mark.parametrize("python", [None, sys.executable])
def test_table(tiny, capsys, python):
    benchmark_quantizers.show(3, python, tokens=(16,), cases=TINY)
    header, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:3] for row in rows] == [[c, "16", p] for c in TINY for p in ("forward", "training")]
    assert ("peer" in header) == bool(python)
    for row in rows:
        case, _, _, median, fastest, memory, share, *peer = row.split()
        assert float(median) >= float(fastest) > 0 and float(memory) >= 0
        assert share == "-" if case == "fsq" else float(share) >= 0
        assert peer[:1] == (["1.5e+03"] if python else [])


def test_a_peer_that_fails_is_told(tiny, monkeypatch):
    monkeypatch.setattr(benchmark_quantizers, "PEER", "raise SystemExit(3)")
    with pytest.raises(UserError, match="vector-quantize-pytorch failed"):
        benchmark_quantizers.show(3, sys.executable, tokens=(16,), cases=["fsq"])
