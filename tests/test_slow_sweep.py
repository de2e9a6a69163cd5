"""The whole way, as CI's smoke pass goes it: sweep, interruption, resume, report."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_interrupted_sweep_resumes_and_reports(tmp_path):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    sweep = [
        sys.executable,
        "scripts/sweep.py",
        "--sweep=configs/sweeps/tradeoff.py:scale=smoke",
        f"--workdir={tmp_path / 'runs'}",
    ]
    first = subprocess.Popen(sweep, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 600
    while not (tmp_path / "runs" / "fsq_8" / "seed0" / "checkpoints" / "25").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    second = subprocess.run(sweep, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "resumed from step 25" in second.stdout and second.stdout.count("rFD-alexnet (train)") == 2
    third = subprocess.run(sweep, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert third.returncode == 0 and "compiled" not in third.stdout

    report = [sys.executable, "scripts/report.py", f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'report'}"]
    subprocess.run(report, cwd=ROOT, env=environment, check=True, timeout=120)
    assert {p.name for p in (tmp_path / "report").iterdir()} == {
        "tradeoff.md",
        "tradeoff.png",
        "tradeoff_histograms.png",
        "records",
    }
