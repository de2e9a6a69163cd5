"""The table of a GPU check: cells of each kind of row, and what is said of failures."""

from fsq_repro.reporting.gpu_check import COLUMNS, gpu_check_report

FACTS = {
    "device": "NVIDIA H100 80GB HBM3",
    "platform": "gpu",
    "runtime": "PJRT C API cuda 12090",
    "driver": "570.1",
    "memory_limit": 60 * 2**30,
    "float32_error": 3e-4,
    "versions": {"python": "3.12.1", "jax": "0.12.0"},
    "revision": "0123456789abcdef",
    "xla_flags": "",
    "quick": False,
}
TRAINED = {"batch_size": 8, "compile_s": 12.3, "loss": 0.5, "resume": {"arrays": 0, "largest": 0.0, "where": ""}}
TIMED = {
    "batch_size": 64,
    "too_large": [256, 128],
    "compile_s": 80.0,
    "step_s": 0.1,
    "flops": 20e12,
    "peak_flops_per_s": 400e12,
    "matrix_flops_per_s": 250e12,
    "program_bytes": 30 * 2**30,
    "peak_bytes": 40 * 2**30,
    "peak_of_compilation": False,
    "bound_bytes": 80 * 2**30,
    "loss": 1.0,
    "note": "",
}


def cells(row, facts=FACTS):
    """Title -> cell of a report's only row."""
    lines = [line for line in gpu_check_report(facts, {"a run": row}).splitlines() if line.startswith("|")]
    header, _, values = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert len(lines) == 3 and len(header) == len(values) == len(COLUMNS) + 1 and values[0] == "a run"
    return dict(zip(header, values, strict=True))


def test_a_timed_step():
    assert cells(TIMED) == {
        "run": "a run",
        "batch": "64",
        "compile (s)": "80",
        "step (ms)": "100",
        "examples/s": "640",
        "TFLOP": "20",
        "TFLOP/s": "200",
        "MFU": "50.0%",
        "of product": "80.0% of 250",
        "peak (GiB)": "40",
        "planned (GiB)": "30",
        "bound (GiB)": "80",
        "result": "loss 1; batch 256, 128 did not fit",
    }


def test_a_device_that_is_not_known_and_does_not_report_its_memory():
    shown = cells(TIMED | {"peak_flops_per_s": None, "peak_bytes": None})
    assert (shown["MFU"], shown["peak (GiB)"]) == ("–", "–")
    assert (shown["TFLOP/s"], shown["of product"]) == ("200", "80.0% of 250")


def test_a_trainer():
    shown = cells(TRAINED)
    assert shown["result"] == "loss 0.5; resumed: equal bitwise" and shown["step (ms)"] == shown["MFU"] == "–"
    assert "add up in no fixed order" not in gpu_check_report(FACTS, {"a run": TRAINED})


def test_a_resumed_run_that_differs():
    row = TRAINED | {"resume": {"arrays": 7, "largest": 2.5e-7, "where": "params/x"}}
    assert cells(row)["result"] == "loss 0.5; resumed: differs in 7 arrays, at most by 2.5e-07 in params/x"
    assert "XLA_FLAGS is empty; with\n  `--xla_gpu_deterministic_ops=true`" in gpu_check_report(FACTS, {"a run": row})
    facts = FACTS | {"xla_flags": "--xla_gpu_deterministic_ops=true"}
    assert "XLA_FLAGS is `--xla_gpu_deterministic_ops=true`;" in gpu_check_report(facts, {"a run": row})


def test_what_failed_stands_beside_what_was_found():
    row = TIMED | {
        "failed": "bound: exit code 1: a | b",
        "loss": float("nan"),
        "peak_of_compilation": True,
        "note": "x",
    }
    assert cells(row)["result"] == (
        "loss nan, not finite; batch 256, 128 did not fit; the peak of memory is that of compilation; x; "
        "bound: exit code 1: a / b"
    )
    assert cells({"failed": "train: not run, no time was left"})["result"] == "train: not run, no time was left"
    assert cells({})["result"] == "–"


def test_the_machine():
    report = gpu_check_report(FACTS, {})
    assert report.startswith("# Check of NVIDIA H100 80GB HBM3, revision 0123456789ab\n")
    for words in ("driver 570.1", "cuda 12090", "may use 60 GiB", "python 3.12.1, jax 0.12.0", "to TF32 on NVIDIA's"):
        assert words in report
    assert "kept in float32" in gpu_check_report(FACTS | {"float32_error": 1e-7}, {})
    assert "0123456789ab, everything in tiny sizes\n" in gpu_check_report(FACTS | {"quick": True}, {})
    failed = gpu_check_report({"failed": "device: exit code 1: no GPU", "quick": False}, {"a run": TRAINED})
    assert "# Check of a device" in failed and "- device: exit code 1: no GPU\n" in failed and "| a run |" in failed
