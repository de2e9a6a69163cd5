"""Where stage I lies: a path that is relative, below the home or of a run that was moved."""

import shutil

import pytest

from fsq_repro.errors import UserError
from fsq_repro.inference.image_generator import load_image_generator
from fsq_repro.inference.tokenizer import load_stage1_tokenizer
from fsq_repro.runtime.run_dir import RunDir
from tests.tiny import save_untrained, tiny_config, tiny_stage2


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("home")
    save_untrained(path / "runs" / "stage1", tiny_config())
    return path


@pytest.mark.parametrize("stage1", ["runs/stage1", "./runs/../runs/stage1", "~/runs/stage1"])
def test_a_run_is_used_from_another_folder_than_it_was_started_in(home, tmp_path, monkeypatch, stage1):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    run = save_untrained(tmp_path / "run", tiny_stage2(stage1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/nowhere")
    assert RunDir(run).config.stage1.startswith(str(home))
    assert load_image_generator(run).tokenizer.step == 8


def test_a_run_directory_below_the_home(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert RunDir("~/runs/stage1").config == RunDir(home / "runs" / "stage1").config


def test_a_stage1_that_was_moved_is_told_with_the_flags(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "runs" / "stage1", "there")
    save_untrained(tmp_path / "run", tiny_stage2("there"))
    shutil.move("there", "moved")
    assert load_image_generator("run", stage1="moved").tokenizer.step == 8
    calls = (
        lambda: load_image_generator("run"),
        lambda: load_image_generator("run", stage1="nowhere"),
        lambda: load_stage1_tokenizer(tiny_stage2("there")),
    )
    for call in calls:
        with pytest.raises(
            UserError, match=r"^stage1 = .*(there|nowhere) is not a run .* --config.stage1=.* --stage1=DIR"
        ):
            call()
