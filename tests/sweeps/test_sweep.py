import itertools
import json
import pathlib

import pytest

from fsq_repro.errors import UserError
from fsq_repro.runtime.run_dir import config_fingerprint
from fsq_repro.sweeps import sweep
from fsq_repro.sweeps.sweep import Run

FAKE_SCRIPT = """
import json, pathlib, sys
args = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
path = pathlib.Path(args["workdir"])
calls = path.parent.parent / "calls.txt"
evaluated = "--evaluate" in sys.argv
calls.open("a").write(f"{sys.argv[0]} {path.parent.name}/{path.name}{' --evaluate' * evaluated}\\n")
if path.parent.name == "broken":
    sys.exit("out of luck")
metrics = [{"metric": "usage"}] if evaluated else []
(path / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
(path / "record.json").write_text(json.dumps({"status": "finished", "metrics": metrics}))
"""


FAKE_CONFIG = """
from ml_collections import ConfigDict
def get_config(arg=""):
    quantizer, data = ConfigDict({"levels": (4, 4)}), ConfigDict({"source": "scenes"})
    return ConfigDict({"seed": 7, "steps": 1, "stage1": "", "quantizer": quantizer, "data": data})
"""


@pytest.fixture
def fake_root(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    for name in ("c.py", "d.py"):
        (tmp_path / name).write_text(FAKE_CONFIG)
    (tmp_path / "scripts" / "train.py").write_text(FAKE_SCRIPT)
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    return tmp_path


def test_sweep_skips_finished_goes_past_failed_and_leaves_out_what_needs_it(fake_root, capsys):
    runs = [Run("broken", "c.py"), Run("needs_it", "c.py", inputs={"stage1": "broken"}), Run("good", "c.py")]
    workdir, seen = fake_root / "runs", []
    tasks = sweep.plan(runs, workdir, sweep="s", seeds=2)
    failed = sweep.run_sweep(tasks, on_finished=seen.append)
    assert failed == ["broken/seed0", "broken/seed1", "needs_it/seed0", "needs_it/seed1"]
    assert len(seen) == 2 and "out of luck" in (workdir / "broken" / "seed0" / "log.txt").read_text()
    calls = (workdir / "calls.txt").read_text().splitlines()
    assert [c for c in calls if "good/seed0" in c] == ["scripts/train.py good/seed0 --evaluate"]
    sweep.run_sweep(tasks, on_finished=seen.append)
    again = (workdir / "calls.txt").read_text().splitlines()[len(calls) :]
    assert not [c for c in again if "good" in c] and len(again) == 2
    assert "min" in capsys.readouterr().out


def test_a_trial_is_trained_and_not_evaluated(fake_root):
    tasks = sweep.plan([Run("trial", "c.py", evaluate=False)], fake_root / "runs", sweep="search", seeds=1)
    for _ in range(2):  # the second time it is done
        assert sweep.run_sweep(tasks, on_finished=lambda path: None) == []
    assert (fake_root / "runs" / "calls.txt").read_text().splitlines() == ["scripts/train.py trial/seed0"]


def finished_elsewhere(records, name, fingerprint, **fields):
    (records / name).mkdir(parents=True)
    record = {"status": "finished", "metrics": [{"metric": "usage"}], "config_fingerprint": fingerprint} | fields
    (records / name / "record.json").write_text(json.dumps(record))


def test_records_of_the_same_config_are_taken_unless_their_checkpoint_is_needed(fake_root):
    """Of two pairs: the second stage of the first is still to be trained, so its autoencoder is trained again."""
    runs = [Run(n, "c.py") for n in ("a", "b")] + [Run(f"{n}_2", "c.py", inputs={"stage1": n}) for n in ("a", "b")]
    tasks = sweep.plan([*runs, Run("other", "c.py")], fake_root / "runs", sweep="s", seeds=1)
    records, same = fake_root / "records", {task.name: config_fingerprint(task.config) for task in tasks}
    for name in ("a/seed0", "b/seed0", "b_2/seed0"):
        finished_elsewhere(records, name, same[name], tokens_sha256="1")
    finished_elsewhere(records, "other/seed0", "another config")
    assert sweep.take_over(tasks, records) == ["b/seed0", "b_2/seed0"]
    assert sweep.run_sweep(tasks, on_finished=lambda path: None) == []
    calls = (fake_root / "runs" / "calls.txt").read_text()
    assert [name for name in ("a/", "b/", "a_2/", "b_2/", "other/") if name in calls] == ["a/", "a_2/", "other/"]
    assert sweep.take_over(tasks, records) == []  # all are done


@pytest.mark.parametrize("again, other", [("1", False), ("2", True), (None, False)])
def test_other_tokens_than_the_first_time_are_seen(tmp_path, again, other):
    finished_elsewhere(tmp_path, "first", "same", tokens_sha256="1")
    finished_elsewhere(tmp_path, "again", "same", tokens_sha256=again)
    assert sweep.other_tokens(tmp_path / "again", tmp_path / "first") == other


def test_parallel_runs_wait_for_what_they_need(fake_root):
    """The second of each pair waits for the first, although there is a worker free; the environment has one thread."""
    script = FAKE_SCRIPT.replace("import json, pathlib, sys", "import json, os, pathlib, sys, time")
    script += "\nif not path.parent.name.endswith('_2'): time.sleep(0.3)\n"
    script += "\nassert os.environ['OPENBLAS_NUM_THREADS'] == '1' and 'eigen=false' in os.environ['XLA_FLAGS']"
    script += "\nassert os.environ['JAX_NUM_CPU_DEVICES'] == '1'\n"
    (fake_root / "scripts" / "train.py").write_text(script)
    runs = [Run(n, "c.py") for n in ("a", "b")] + [Run(f"{n}_2", "c.py", inputs={"stage1": n}) for n in ("a", "b")]
    workdir, seen = fake_root / "runs", []
    tasks = sweep.plan(runs, workdir, sweep="s", seeds=1)
    assert sweep.run_sweep(tasks, on_finished=seen.append, parallel=2) == []
    calls = (workdir / "calls.txt").read_text().splitlines()
    assert len(calls) == 4 and len(seen) == 4
    for name in ("a", "b"):
        order = [c for c in calls if c.split()[1].startswith(f"{name}/") or c.split()[1].startswith(f"{name}_2/")]
        assert [c.split()[1] for c in order] == [f"{name}/seed0", f"{name}_2/seed0"]


def test_all_sweep_files_name_runs_of_existing_configs():
    root = pathlib.Path(__file__).resolve().parents[2]
    for file in (root / "configs" / "sweeps").glob("[!_]*.py"):
        if file.stem == "search":  # of autoencoders at one scale
            assert len(sweep.load_runs(str(file))) == 49
            assert len(sweep.load_runs(f"{file}:part=seeds")) == 6
            continue
        stages = ("",) if file.stem in ("guidance", "uvim") else (",stages=1", ",stages=both")
        for scale, stage in itertools.product(("paper", "cpu", "smoke"), stages):
            runs = sweep.load_runs(f"{file}:scale={scale}{stage}")
            assert runs and all((root / r.config).is_file() for r in runs)
            assert any(r.inputs for r in runs) == (stage != ",stages=1")


def test_bad_sweeps(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        sweep.load_runs(str(tmp_path / "nothing.py"))
    file = tmp_path / "s.py"
    file.write_text(
        "from fsq_repro.sweeps.sweep import Run\ndef get_runs(arg): return [Run('b', 'c.py', inputs={'stage1': 'a'})]\n"
    )
    with pytest.raises(UserError, match="run 'b'"):
        sweep.load_runs(str(file))


def test_selected_runs_bring_those_that_they_need():
    runs = [
        Run("a", "c.py"),
        Run("b", "c.py"),
        Run("a_2", "c.py", inputs={"x": "a"}),
        Run("a_3", "c.py", inputs={"x": "a_2"}),
    ]
    names = lambda only: [run.name for run in sweep.select_runs(runs, only)]  # noqa: E731
    assert names(".*") == ["a", "b", "a_2", "a_3"] and names("a_3") == ["a", "a_2", "a_3"]
    assert names("b|a") == ["a", "b"] and names("a_.") == ["a", "a_2", "a_3"]
    for only, words in (("a_", "matches no run of a, b, a_2, a_3"), ("(", "no regular expression")):
        with pytest.raises(UserError, match=words):
            sweep.select_runs(runs, only)


def test_overrides_and_inputs_reach_the_command_line(fake_root):
    (fake_root / "scripts" / "train.py").write_text(
        FAKE_SCRIPT.replace("out of luck", "") + "\n(path / 'argv.json').write_text(json.dumps(sys.argv))"
    )
    runs = [
        Run("r", "c.py", "bits=8", {"quantizer.levels": "(8, 8)", "data.source": "photos"}),
        Run("r_maskgit", "d.py", inputs={"stage1": "r"}),
    ]
    overrides = {"data.source": "folder:a=b"}
    tasks = sweep.plan(runs, fake_root / "runs", sweep="s", seeds=1, overrides=overrides)
    sweep.run_sweep(tasks, on_finished=lambda r: None)
    first, second = (fake_root / "runs" / name / "seed0" for name in ("r", "r_maskgit"))
    assert f"--config.stage1={first}" in json.loads((second / "argv.json").read_text())
    argv = json.loads((first / "argv.json").read_text())
    assert "--config=c.py:bits=8" in argv and "--config.quantizer.levels=(8, 8)" in argv and "--config.seed=0" in argv
    assert [a for a in argv if "data.source" in a] == ["--config.data.source=folder:a=b"]  # over the run's own


@pytest.mark.parametrize("key", ["seed", "stage1"])
def test_what_the_sweep_itself_sets_cannot_be_overridden(fake_root, key):
    runs = [Run("r", "c.py"), Run("r_maskgit", "d.py", inputs={"stage1": "r"})]
    with pytest.raises(UserError, match=f"--set={key}=3: the sweep itself sets {key}"):
        sweep.plan(runs, fake_root, sweep="s", seeds=1, overrides={key: "3"})


def test_what_needs_one_seed_is_trained_once_and_serves_all(fake_root):
    """Also after it failed: then nothing that needs it is started."""
    script = FAKE_SCRIPT + "\n(path / f'{pathlib.Path(sys.argv[0]).stem}.json').write_text(json.dumps(sys.argv))\n"
    (fake_root / "scripts" / "train.py").write_text(script)
    runs = [
        Run("a_stage1", "c.py", one_seed=True),
        Run("a", "c.py", inputs={"stage1": "a_stage1"}),
        Run("broken", "c.py", one_seed=True),
        Run("b", "c.py", inputs={"stage1": "broken"}),
    ]
    workdir, seen = fake_root / "runs", []
    tasks = sweep.plan(runs, workdir, sweep="s", seeds=3)
    failed = sweep.run_sweep(tasks, on_finished=seen.append, parallel=2)
    assert failed == ["broken/seed0", "b/seed0", "b/seed1", "b/seed2"]
    assert sorted(str(path.relative_to(workdir)) for path in seen) == [
        "a/seed0",
        "a/seed1",
        "a/seed2",
        "a_stage1/seed0",
    ]
    calls = [line.split()[1] for line in (workdir / "calls.txt").read_text().splitlines()]
    assert calls.count("a_stage1/seed0") == 1 and len(calls) == 5 and not any(c.startswith("b/") for c in calls)
    for seed in range(3):
        argv = json.loads((workdir / "a" / f"seed{seed}" / "train.json").read_text())
        assert f"--config.stage1={workdir / 'a_stage1' / 'seed0'}" in argv and f"--config.seed={seed}" in argv


@pytest.mark.parametrize("scale, rows", [("paper", 9), ("cpu", 9), ("smoke", 3)])
def test_uvim_sweep_has_both_stages_of_each_row_of_table_2(scale, rows):
    runs = sweep.load_runs(f"{pathlib.Path(__file__).parents[2] / 'configs' / 'sweeps' / 'uvim.py'}:scale={scale}")
    assert len(runs) == 2 * rows
    ablations = set()
    for stage1, stage2 in zip(runs[:rows], runs[rows:], strict=True):
        assert stage1.name == f"{stage2.name}_stage1" and stage1.config == stage2.config
        assert stage1.one_seed and not stage2.one_seed
        assert stage1.inputs == {} and stage2.inputs == {"stage1": stage1.name}
        assert stage1.arg.removeprefix("stage=1,") == stage2.arg.removeprefix("stage=2,") != stage2.arg
        task = stage2.name.split("_")[0]
        assert stage2.config == f"configs/uvim_{task}.py" and stage2.arg.endswith(f",scale={scale}")
        ablations.add((task, stage2.arg.removeprefix("stage=2,").removesuffix(f",scale={scale}")))
    assert {task for task, _ in ablations} == {"depth", "panoptic", "colorization"}
    if scale != "smoke":
        both = {(task, f"quantizer={q}") for task in ("depth", "panoptic", "colorization") for q in ("fsq", "vq")}
        no_context = {("panoptic", f"quantizer={q},context=false") for q in ("fsq", "vq")}
        assert ablations == both | no_context | {("depth", "quantizer=vq_nosplit")}
