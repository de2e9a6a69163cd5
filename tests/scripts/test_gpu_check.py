"""`gpu_check.py` as a user calls it: its rows, its file, no time, no accelerator; all of it in tiny sizes (slow)."""

import re

import pytest

from scripts import gpu_check as script
from tests.scripts.processes import command, environment, finish, run_all, start

SCRIPT = "scripts/gpu_check.py"


@pytest.fixture
def configs_of(monkeypatch):
    script.FLAGS(["gpu_check.py", "--out=table.md"])
    yield lambda row, quick=False: (setattr(script.FLAGS, "quick", quick), script.configs_of(row))[1]
    script.FLAGS.unparse_flags()


def test_configs_of_the_rows(configs_of):
    for row, (_, dtype) in script.ROWS.items():
        config, stage1 = configs_of(row)
        assert (stage1 is not None) == ("stage II" in row)
        scale = "smoke" if not dtype else "paper" if "ImageNet" in row else "cifar10"
        assert {c.scale for c in (config, stage1) if c} == {scale}
        assert {c.model.dtype for c in (config, stage1) if c} == {dtype or "float32"}
        if stage1:
            assert stage1.quantizer.to_dict() == config.quantizer.to_dict()
            assert stage1.data.resolution == config.data.resolution
        assert {c.scale for c in configs_of(row, quick=True) if c} == {"smoke"}
    config, stage1 = configs_of("ImageNet 256 stage II, bfloat16")
    assert (config.experiment, config.batch_size, stage1.experiment) == (
        "imagenet256_maskgit",
        256,
        "imagenet256_autoencoder",
    )
    assert configs_of("stage II, autoregressive")[0].model.kind == "autoregressive"


def test_without_time_or_accelerator(tmp_path):
    out = tmp_path / "new" / "table.md"
    cases = {
        "time": [SCRIPT, f"--out={out}", "--minutes=0", "--row=stage II, masked", "--row=CIFAR-10 stage I, bfloat16"],
        "accelerator": [SCRIPT, f"--out={tmp_path / 'none.md'}", "--row=stage II, masked"],
        "row": [SCRIPT, f"--out={tmp_path / 'none.md'}", "--row=stage III"],
    }
    outputs = run_all(cases, tmp_path)
    code, output = outputs["time"]
    report = out.read_text()
    assert code == 0 and report in output
    assert "device: not run" in report and "train: not run" in report and "time: not run" in report
    rows = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("|")]
    assert rows == ["run", "---", "stage II, masked", "CIFAR-10 stage I, bfloat16"]
    assert (
        outputs["accelerator"][0] == 2 and "error: JAX sees no accelerator, only the CPU" in outputs["accelerator"][1]
    )
    assert outputs["row"][0] == 2 and "error: " in outputs["row"][1] and "stage III" in outputs["row"][1]
    assert not (tmp_path / "none.md").exists()


@pytest.mark.slow
def test_all_of_it_in_tiny_sizes(tmp_path):
    out = tmp_path / "table.md"
    finish(start(command("gpu_check", "--quick", "--minutes=60", f"--out={out}"), environment(tmp_path)), timeout=3600)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.read_text().splitlines() if "| " in line]
    rows = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}
    assert rows.keys() == script.ROWS.keys()
    for name, row in rows.items():
        number = r"loss [\d.]+"
        if script.ROWS[name][1]:
            assert re.fullmatch(number, row["result"]) and float(row["bound (GiB)"]) > 0 and row["peak (GiB)"] == "–"
            assert float(row["step (ms)"].replace(",", "")) > 0 and row["MFU"] == "–" and "%" in row["of product"]
        else:
            assert re.fullmatch(f"{number}; resumed: equal bitwise", row["result"])
