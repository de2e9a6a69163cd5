"""`dry_run.py` and `dry_run_table.py` as a user calls them: figures, cache, tables, bad input."""

import json

from tests.scripts.processes import run_all
from tests.scripts.test_scripts import TINY

SCRIPT = "scripts/dry_run.py"
FIELDS = TINY | {"loss.gan": "0.0"}
AUTOENCODER = [
    "--config=configs/tradeoff_autoencoder.py:scale=smoke",
    *(f"--config.{k}={v}" for k, v in FIELDS.items()),
]
MASKGIT = [
    "--config=configs/tradeoff_maskgit.py:quantizer=vq,scale=smoke",
    "--config.quantizer.codebook_size=32",
    "--config.quantizer.embedding_dim=8",
]
UVIM = ["--config=configs/uvim_depth.py:stage=2,context=false,scale=smoke", "--config.quantizer.levels=(5,5,3)"]
SWEEP = """
from fsq_repro.sweeps.sweep import Run

def get_runs(arg=""):
    config, fields = "configs/tradeoff_autoencoder.py", %r
    return [Run(f"fsq_{b}", config, f"bits={b},scale=smoke", fields) for b in (4, 6)]
"""


def test_figures_and_tables(tmp_path):
    sweep = tmp_path / "small.py"
    sweep.write_text(SWEEP % (FIELDS | {"batch_size": "64"}))
    table = ["scripts/dry_run_table.py", f"--sweep={sweep}", f"--cache={tmp_path / 'cache'}", f"--out={tmp_path}/t.md"]

    def two(first, second):
        return ["--devices=4", f"--json={tmp_path / first}.json", "--devices=2", f"--json={tmp_path / second}.json"]

    outputs = run_all(
        {
            "compiled": [SCRIPT, *AUTOENCODER, "--devices=2", f"--json={tmp_path / 'compiled.json'}"],
            "maskgit": [SCRIPT, *MASKGIT, "--nocompile", *two("maskgit", "maskgit_on_2")],
            "uvim": [SCRIPT, *UVIM, "--devices=4", "--fsdp=4", "--nocompile", f"--json={tmp_path / 'uvim.json'}"],
            "table": [*table, "--layouts=fsdp64", "--only=small/fsq_4"],
        },
        tmp_path,
    )
    assert {code for code, _ in outputs.values()} == {0}, outputs
    names = ("compiled", "maskgit", "maskgit_on_2", "uvim")
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in names}
    compiled = found["compiled"]["compiled"]
    parameters = sum(found["compiled"]["parameters"].values())
    assert 0 <= compiled["collectives"]["bytes"]["all-reduce"] - 4 * parameters < 200
    text = outputs["compiled"][1]
    for words in ("experiment", "2 devices, fsdp 1", f"{parameters:,}", "all-reduce per step", "TPU v4 at 30% of peak"):
        assert words in text
    assert found["maskgit"]["tokens_per_example"] == 16 and found["maskgit"]["compiled"] is None
    assert found["maskgit"]["memory"]["frozen"] == 0  # tokens are made once
    assert found["maskgit_on_2"]["memory"]["batch"] == 2 * found["maskgit"]["memory"]["batch"] > 0
    assert (found["uvim"]["devices"], found["uvim"]["fsdp"]) == (4, 4) and found["uvim"]["memory"]["frozen"] > 0

    report = (tmp_path / "t.md").read_text()
    file = tmp_path / "cache" / "small.json"
    cached = json.loads(file.read_text())
    assert [*cached] == ["fsq_4/fsdp64"] and file.read_text().count("\n") == 3
    assert "| fsq_4 | 64, FSDP |" in report and "fsq_6" not in report and "at a utilisation of 30%" in report
    # What is in the cache is taken as it is.
    (found,) = cached.values()
    assert f"{sum(found['parameters'].values()):,}" in report
    file.write_text(json.dumps({"fsq_4/fsdp64": found | {"steps": 123_456, "compiled": compiled}}))
    (tmp_path / "second").mkdir()
    code, output = run_all({"table": [*table, "--only=^$"]}, tmp_path / "second")["table"]
    report = (tmp_path / "t.md").read_text()
    assert code == 0 and "| 123,456 |" in report and "| all-reduce |" in report, output


def test_bad_input_ends_in_one_sentence_and_writes_nothing(tmp_path):
    small = [SCRIPT, *AUTOENCODER, f"--json={tmp_path / 'out.json'}"]
    uvim = [SCRIPT, *UVIM, f"--json={tmp_path / 'out.json'}"]
    table = ["scripts/dry_run_table.py", f"--cache={tmp_path / 'cache'}", f"--out={tmp_path / 'out.md'}"]
    cases = {
        "batch": ([*small, "--devices=3"], "batch_size = 8 must be a multiple of the 3 devices"),
        "fsdp": ([*small, "--devices=4", "--fsdp=3"], "mesh.fsdp = 3 must divide the number of devices, 4"),
        "devices": ([*small, "--devices=0"], "devices"),
        "stage I": ([*uvim, "--config.stage1=/no/where"], "/no/where"),
        "other name": ([*uvim, "--config.experiment=mine"], "there is no configs/mine.py"),
        "as often": ([*small, "--devices=2", "--devices=1"], "--json stands there 1 times, but --devices 2 times"),
        "no folder": ([SCRIPT, *AUTOENCODER, "--json=/proc/a.json"], "no file can be written in /proc"),
        "layout": ([*table, "--layouts=dp1,dp2"], "--layouts=dp2 is not one of dp1, dp8"),
        "expression": ([*table, "--only=("], "--only='(' is no regular expression"),
        "nothing": ([*table, "--only=^$"], "there are no dry runs to report"),
    }
    outputs = run_all({name: argv for name, (argv, _) in cases.items()}, tmp_path)
    for name, (_, message) in cases.items():
        code, output = outputs[name]
        assert code == 2 and message in output, (name, output)
        assert [line.startswith("error: ") for line in output.splitlines()] == [True], (name, output)
    assert not [*tmp_path.glob("out.*"), *tmp_path.glob("cache/*")]
