"""What becomes of rows whose process ends well, breaks or hangs; smaller batches until one fits."""

import os
import sys

import pytest

from fsq_repro.profiling.check_parts import run_part, run_until_it_fits

PRINT = "from fsq_repro.profiling.check_parts import emit; emit(iter([dict(loss=1.0), dict(loss=1.0, step_s=2.0)]))\n"


def run(code: str, seconds: float = 60.0):
    return run_part("time", [sys.executable, "-c", code], seconds, os.environ)


def test_the_last_row_counts():
    assert run("print('noise')\n" + PRINT + "print('row without a mark')") == {"loss": 1.0, "step_s": 2.0}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "time: exit code -6: "),
        ("import sys; print('first\\nthe cause', file=sys.stderr); sys.exit(3)", "time: exit code 3: the cause"),
        ("import time; time.sleep(60)", "time: stopped after 3 s, no time was left"),
    ],
)
def test_a_part_that_breaks_or_hangs_keeps_its_row_and_says_why(code, message, capfd):
    assert run(PRINT + code, seconds=3.0) == {"loss": 1.0, "step_s": 2.0, "failed": message}
    assert ("first\nthe cause" in capfd.readouterr().err) == ("the cause" in code)


def test_a_part_without_time_or_without_a_row():
    assert run("raise AssertionError", seconds=0.0) == {"failed": "time: not run, no time was left"}
    assert run("print('nothing')") == {"failed": "time: it printed no row"}


def test_what_the_part_itself_says_stands():
    code = "import json; print('row: ' + json.dumps({'failed': 'train: not finite'})); raise SystemExit(1)"
    assert run(code) == {"failed": "train: not finite"}


def machine(capacity: int, **told: int):
    """A run that takes the config's batch of 48 for 0, and fits up to `capacity`."""
    tried = []

    def run(batch_size: int):
        tried.append(batch_size or 48)
        row = {"batch_size": tried[-1]} | {name: value * tried[-1] for name, value in told.items()}
        return row if tried[-1] <= capacity else row | {"failed": "...", "out_of_memory": True}

    return run, tried


def test_the_batch_is_halved_until_it_fits():
    for capacity, tried_then in (
        (48, [48]),
        (20, [48, 24, 12]),
        (1, [48, 24, 12, 6, 3, 1]),
        (0, [48, 24, 12, 6, 3, 1]),
    ):
        run, tried = machine(capacity)
        row = run_until_it_fits(run)
        assert tried == tried_then and row["batch_size"] == tried[-1]
        assert row["too_large"] == tried[:-1] and ("failed" in row) == (capacity == 0)


def test_batches_that_cannot_fit_are_left_out():
    run, tried = machine(12, program_bytes=100)
    row = run_until_it_fits(lambda batch_size: run(batch_size) | {"limit_bytes": 1200})
    assert tried == [48, 12] and row["batch_size"] == 12


def test_other_failures_end_it():
    tried = []
    row = run_until_it_fits(lambda batch_size: tried.append(batch_size) or {"failed": "exit code -11"})
    assert tried == [0] and row == {"failed": "exit code -11", "too_large": []}
