# make reproduce           sets up, trains FSQ and VQ at matched codebook sizes on two CPU cores, evaluates, reports
# make reproduce-maskgit   then trains stage II on those autoencoders, samples, evaluates, reports
# make reproduce-cifar10   the trade-off study on CIFAR-10 with three seeds
# make reproduce-uvim      UViM: depth, panoptic segmentation, colourisation with FSQ and VQ, both stages
# make test                sets up and runs all tests
# make gpu-check           ten minutes on a GPU: trainers, resume, step times, memory; PYTHON=... has the packages
# make test-fast           some of each folder in under a minute: the list in tests/fast.txt
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
RESULTS ?= results
SEEDS ?= 1
DATA ?= cifar10

.PHONY: setup reproduce reproduce-maskgit reproduce-cifar10 reproduce-search reproduce-levels reproduce-guidance reproduce-uvim test test-fast test-slow smoke lint \
	benchmark benchmark-maskgit benchmark-uvim gpu-check torture tfds clean

setup: $(VENV)/ready

reproduce: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu --workdir=$(RUNS)/tradeoff --seeds=$(SEEDS) --parallel=2
	$(BIN)/python scripts/report.py --runs=$(RUNS)/tradeoff --out=$(RESULTS)/tradeoff

# Takes the autoencoders of `make reproduce` as they are, and trains those that are not there.
reproduce-maskgit: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cpu,stages=both --workdir=$(RUNS)/tradeoff --seeds=$(SEEDS) --parallel=2
	$(BIN)/python scripts/representation.py --runs=$(RUNS)/tradeoff/fsq_10/seed0,$(RUNS)/tradeoff/vq_10/seed0 --out=$(RESULTS)/tradeoff/representation.png
	$(BIN)/python scripts/report.py --runs=$(RUNS)/tradeoff --out=$(RESULTS)/tradeoff

# Hours, resumable; DATA=folder:PATH takes the images from a folder with train/ and test/;
# RECORDS=results/cifar10/records leaves out what was finished there.
reproduce-cifar10: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=cifar10,stages=both --workdir=$(RUNS)/cifar10 --seeds=3 --parallel=2 --set=data.source=$(DATA) $(if $(RECORDS),--records=$(RECORDS))
	$(BIN)/python scripts/report.py --runs=$(RUNS)/cifar10 --out=$(RESULTS)/cifar10 --noshow_data

# The trials that the recipe of scale=cifar10 was chosen by.
reproduce-search: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/search.py --workdir=$(RUNS)/search --parallel=2 --set=data.source=$(DATA)
	$(BIN)/python scripts/report.py --runs=$(RUNS)/search --out=$(RESULTS)/search --noshow_data

reproduce-guidance: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/guidance.py:scale=cpu --workdir=$(RUNS)/guidance --seeds=$(SEEDS) --parallel=2
	$(BIN)/python scripts/report.py --runs=$(RUNS)/guidance --out=$(RESULTS)/guidance

reproduce-uvim: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/uvim.py:scale=cpu --workdir=$(RUNS)/uvim --seeds=$(SEEDS) --parallel=2
	$(BIN)/python scripts/compare.py --runs=$(RUNS)/uvim/depth_fsq/seed0,$(RUNS)/uvim/depth_vq/seed0,$(RUNS)/uvim/depth_vq_nosplit/seed0 --out=$(RESULTS)/uvim/depth_edges.png
	$(BIN)/python scripts/report.py --runs=$(RUNS)/uvim --out=$(RESULTS)/uvim

reproduce-levels: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/levels.py:bits=10,scale=cpu --workdir=$(RUNS)/levels_10 --seeds=$(SEEDS)
	$(BIN)/python scripts/report.py --runs=$(RUNS)/levels_10 --out=$(RESULTS)/levels_10

test: $(VENV)/ready lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal @tests/fast.txt

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

smoke: $(VENV)/ready
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/tradeoff.py:scale=smoke,stages=both --workdir=$(RUNS)/smoke
	$(BIN)/python scripts/report.py --runs=$(RUNS)/smoke --out=$(RUNS)/smoke/report
	$(BIN)/python scripts/sweep.py --sweep=configs/sweeps/uvim.py:scale=smoke --workdir=$(RUNS)/smoke_uvim --parallel=2
	$(BIN)/python scripts/report.py --runs=$(RUNS)/smoke_uvim --out=$(RUNS)/smoke_uvim/report

benchmark: $(VENV)/ready
	$(BIN)/python scripts/benchmark.py --config=configs/tradeoff_autoencoder.py:scale=cpu

benchmark-maskgit: $(VENV)/ready
	$(BIN)/python scripts/benchmark.py --config=configs/tradeoff_maskgit.py:scale=cpu --config.stage1=$(RUNS)/tradeoff/fsq_10/seed0

benchmark-uvim: $(VENV)/ready
	$(BIN)/python scripts/benchmark.py --config=configs/uvim_depth.py:stage=1,scale=cpu
	$(BIN)/python scripts/benchmark.py --config=configs/uvim_depth.py:stage=2,scale=cpu --config.stage1=$(RUNS)/uvim/depth_fsq_stage1/seed0

# Hours: kills trainings at random moments, fills their disk, and compares with unbroken ones.
torture: $(VENV)/ready
	$(BIN)/python scripts/torture.py --out=$(RESULTS)/torture.md

gpu-check:
	PYTHONPATH=. $(PYTHON) scripts/gpu_check.py --out=$(RESULTS)/gpu_check.md

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the embedded data do without: building TFDS sets, TensorBoard.
tfds: $(VENV)/ready
	$(BIN)/pip install -q -r requirements-tfds.txt

$(VENV)/ready: requirements.txt requirements-dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) .jax_cache
