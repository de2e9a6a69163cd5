"""The runs of the trade-off study."""

import pathlib

import pytest

from configs import tradeoff_autoencoder, tradeoff_maskgit
from fsq_repro.sweeps import sweep


@pytest.mark.parametrize("scale", ["paper", "cifar10", "cpu", "smoke"])
def test_every_stage_2_stands_behind_a_stage_1_of_the_same_quantizer(scale):
    file = pathlib.Path(__file__).parents[2] / "configs" / "sweeps" / "tradeoff.py"
    runs = {run.name: run for run in sweep.load_runs(f"{file}:scale={scale},stages=both")}
    assert list(runs) == [*(n for n in runs if not runs[n].inputs), *(n for n in runs if runs[n].inputs)]
    for run in runs.values():
        module = tradeoff_maskgit if run.inputs else tradeoff_autoencoder
        config = module.get_config(run.arg)
        assert config.scale == scale and not (run.one_seed and not run.inputs)
        if run.inputs:
            stage1 = tradeoff_autoencoder.get_config(runs[run.inputs["stage1"]].arg)
            assert stage1.quantizer == config.quantizer
    if scale == "cifar10":
        assert {name for name in runs if runs[name].one_seed} == {
            *(f"{q}_{bits}_maskgit" for q in ("fsq", "vq_narrow") for bits in (6, 8, 14)),
            "vq_10_maskgit",
        }
