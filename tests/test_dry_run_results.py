"""What README and `results/dry_run.md` say of the paper's programs, in the dry runs that they are made from."""

import json
import math

import pytest

from fsq_repro.quantizers import nearest
from fsq_repro.sweeps.sweep import ROOT
from tests.scripts.processes import run_all

FOUND = {
    f"{file.stem}/{run}": found
    for file in (ROOT / "results/dry_run").glob("*.json")
    for run, found in json.loads(file.read_text()).items()
}
RUNS = sorted(run.removesuffix("/fsdp64") for run in FOUND if run.endswith("/fsdp64"))
STAGE1 = [run for run in RUNS if not run.endswith(("_maskgit", "_ar")) and not run.startswith("uvim")]
TRACED_AGAIN = {
    "tradeoff/fsq_10": "tradeoff_autoencoder.py:quantizer=fsq,bits=10",
    "guidance/vq_10_maskgit": "imagenet256_maskgit.py:quantizer=vq,bits=10",
    "uvim/depth_vq_stage1": "uvim_depth.py:stage=1,quantizer=vq",
    "uvim/panoptic_fsq": "uvim_panoptic.py:stage=2,quantizer=fsq",
}


# Of the published modules, FSQ's with its channels in the codebook's place; autoencoders with their discriminator.
PARAMETERS = {
    "tradeoff/fsq_10": 52_962_951 + 23_880_833,
    "tradeoff/vq_10": 54_515_587 + 23_880_833,
    "guidance/fsq_10": 52_962_951 + 23_998_017,
    "guidance/vq_10": 54_515_587 + 23_998_017,
    "guidance/fsq_10_maskgit": 172_438_737,
    "guidance/vq_10_maskgit": 172_457_193,
    "uvim/depth_vq_stage1": 232_249_600,
    "uvim/depth_fsq_stage1": 232_249_600 - 1_181_184 + 8_453,
    "uvim/colorization_vq_stage1": 132_701_184,
    "uvim/panoptic_vq_stage1": 223_593_984,
    "uvim/panoptic_vq_nocontext_stage1": 223_593_984 - 1_181_184,
    "uvim/depth_vq": 715_729_921,
    "uvim/colorization_vq": 715_729_921,
    "uvim/panoptic_vq": 715_729_921,
}


def found(run, layout):
    return FOUND[f"{run}/{layout}"]


def collectives(run, layout):
    return dict(found(run, layout)["compiled"]["collectives"]["bytes"])


def parameter_bytes(run, prefix=""):
    return 4 * sum(n for name, n in found(run, "dp8")["parameters"].items() if name.startswith(prefix))


def test_all_sweeps_are_there():
    assert {run.split("/")[0] for run in RUNS} == {"tradeoff", "guidance", "uvim"} and len(RUNS) == 61
    layouts = ("dp1", "dp8", "dp64", "fsdp8", "fsdp64")
    assert FOUND.keys() == {f"{run}/{layout}" for run in RUNS for layout in layouts}


@pytest.mark.parametrize("run", PARAMETERS)
def test_parameters_are_the_published_models(run):
    assert parameter_bytes(run) == 4 * PARAMETERS[run]


@pytest.mark.parametrize("run", RUNS)
def test_data_parallel_steps_sum_gradients(run):
    assert collectives(run, "dp1") == {}
    others = collectives(run, "dp8")
    assert others == collectives(run, "dp64")
    rest = others.pop("all-reduce") - parameter_bytes(run)
    assert sum(others.values()) <= 4 * found(run, "dp8")["tokens_per_step"]  # indices, for the usage
    if run in STAGE1:
        # The discriminator is applied three times; its biases are summed once for two applications.
        rest -= 2 * parameter_bytes(run, "discriminator")
        assert -25_000 < rest - entropy_bytes(run) < -20_000
    elif run.startswith("uvim"):
        assert 0 < rest < 0.03 * parameter_bytes(run)  # of it VQ's codebook statistics
    else:
        assert 0 < rest < parameter_bytes(run, "Embed")  # the codes' embeddings are the output layer, too


def entropy_bytes(run):
    """Of VQ's entropy term: the codebook's gradient and two sums over tokens, in each of its pieces."""
    if "/vq_" not in run or "no_entropy" in run:
        return 0
    codes, channels = 2 ** int(run.split("_")[1]), 256
    pieces = math.ceil(found(run, "dp8")["tokens_per_step"] * codes / nearest.CHUNK_ELEMENTS)
    return 4 * pieces * codes * (channels + 2)


def test_fsqs_codebook_is_not_communicated():
    def rest(bits):
        return collectives(f"tradeoff/fsq_{bits}", "dp8")["all-reduce"] - parameter_bytes(f"tradeoff/fsq_{bits}")

    assert len({rest(bits) for bits in (4, 6, 8, 9, 10, 11, 12, 14, 16)}) == 1


@pytest.mark.parametrize("run", RUNS)
def test_fsdp_splits_parameters_and_optimiser(run):
    for part in ("params", "optimizer"):
        whole = found(run, "dp8")["memory"][part]
        for n in (8, 64):
            # Small arrays stay whole.
            assert 0 <= found(run, f"fsdp{n}")["memory"][part] - whole / n < 0.02 * whole
    sizes, networks = collectives(run, "fsdp8"), found(run, "dp8")["memory"]["params"]
    assert 0.99 < sizes["all-gather"] / networks < 1.1
    if run not in ("tradeoff/vq_14", "tradeoff/vq_16"):  # these exchange pieces of the entropy term
        assert sizes.get("all-to-all", 0) < 0.01 * networks  # a large embedding's gradient
        assert sizes["all-reduce"] < 1.03 * collectives(run, "dp8")["all-reduce"]


@pytest.mark.slow
@pytest.mark.parametrize("run", TRACED_AGAIN)
def test_they_are_of_this_code(run, tmp_path):
    again = tmp_path / "again.json"
    arguments = [f"--config=configs/{TRACED_AGAIN[run]},scale=paper", "--nocompile", "--devices=64", "--fsdp=64"]
    code, output = run_all({run: ["scripts/dry_run.py", *arguments, f"--json={again}"]}, tmp_path)[run]
    assert code == 0, output
    assert json.loads(again.read_text()) == found(run, "fsdp64")
