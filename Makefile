# farout. `make` alone lists the targets.
VENV    ?= .venv
PYTHON  ?= python3
PY      := $(VENV)/bin/python
READY   := $(VENV)/.installed
ifeq ($(origin PY),command line)
READY   :=
endif
SCALE   ?= full
SEEDS   ?= 1
INIT    ?=
TABLE   ?= energy
ID      ?= $(if $(filter demo%,$(SCALE) $(TABLE)),digits,cifar10)
DEVICE  ?= cpu
ARGS    ?=
# Where pip finds another build of PyTorch than PyPI's, such as the one for CPUs alone (docs/install.md).
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help env demo test torture lint format data reproduce-table1 reproduce-oe reproduce-cider reproduce-jem reproduce-energy-margins campaign bench verdicts readme browser architecture docs page status hooks clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-25s %s\n", $$1, $$2}'
	@echo
	@echo "  variables: SCALE=full|medium|small|demo SEEDS=\"1 2\" ID=cifar10|cifar100|svhn|digits INIT=RUN_FOLDER TABLE=energy|oe|cider|jem DEVICE=cpu|cuda ARGS=\"key=value ...\""
	@echo "  TORCH_INDEX=URL: take PyTorch from there, for make env without CUDA (docs/install.md)"
	@echo "  PY=PYTHON: one of yours that has all it takes, and no environment is made"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else 'farout needs Python 3.11 to 3.13: set PYTHON=...')"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(if $(TORCH_INDEX),$(PY) -m pip install --quiet -c constraints.txt --no-deps --index-url "$(TORCH_INDEX)" torch torchvision)
	$(PY) -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(READY)

env: $(READY)  ## create the environment in .venv

demo: $(READY)  ## train, fine-tune, evaluate and tabulate on digits: no download, no account, a few minutes
	$(PY) scripts/reproduce.py --scale demo --id digits $(ARGS)

test: $(READY)  ## lint, types and all tests
	@$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal

torture: $(READY)  ## 200 interruptions of all commands must end bit-equal (ARGS="--interruptions 8 --stages train --seed 1")
	$(PY) scripts/torture.py $(ARGS)

lint: $(READY)  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)  ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

data: $(READY)  ## list the data sets: ready, from a pack, or missing
	$(PY) scripts/prepare_data.py --list

reproduce-table1: $(READY)  ## Energy's Table 1: train what is missing, print ours beside the paper's
	$(PY) scripts/reproduce.py $(ARGS) --scale $(SCALE) --id $(ID) $(if $(INIT),--init $(INIT)) --seeds $(SEEDS)

reproduce-oe: $(READY)  ## Outlier Exposure's table at full scale: train what is missing, print ours beside the paper's
	$(PY) scripts/reproduce.py $(ARGS) --paper oe --scale $(SCALE) --id $(ID) $(if $(INIT),--init $(INIT)) --seeds $(SEEDS)

reproduce-cider: $(READY)  ## CIDER's table and its embeddings' angles: train what is missing, print beside the paper's
	$(PY) scripts/reproduce.py $(ARGS) --paper cider --scale $(SCALE) --id $(ID) $(if $(INIT),--init $(INIT)) --seeds $(SEEDS)

reproduce-jem: $(READY)  ## JEM's tables: OOD, hybrid modelling, calibration, robustness, beside the paper's figures
	$(PY) scripts/reproduce.py $(ARGS) --paper jem --scale $(SCALE) --id $(ID) $(if $(INIT),--init $(INIT)) --seeds $(SEEDS)

reproduce-energy-margins: $(READY)  ## how energy fine-tuning depends on its margins, its weight and its outliers, one at a time
	$(PY) scripts/sensitivity.py $(ARGS) --scale $(SCALE) --id $(ID) $(if $(INIT),--init $(INIT)) --seeds $(SEEDS)

campaign: $(READY)  ## TABLE's full-scale rows (energy, oe, cider, jem) in slices of 9 minutes; repeat until complete
	$(PY) scripts/campaign.py --table $(TABLE) --id $(ID) --seeds $(SEEDS) $(ARGS)

bench: $(READY)  ## what things cost, ours against baselines: results/bench-cpu.json, docs/speed.md (DEVICE=cuda: a GPU)
	$(PY) scripts/bench.py --device $(DEVICE) $(ARGS)

readme: verdicts  ## the same by another name: README's table and picture, docs/, from results/

verdicts: $(READY)  ## verdicts on the papers' claims; every block and picture of README and docs/ that is made from results/
	$(PY) scripts/verdicts.py $(ARGS)

page: $(READY)  ## the page of all runs, outputs/index.html, which every evaluation writes too (ARGS=FOLDER: another)
	$(PY) scripts/page.py $(ARGS)

status: $(READY)  ## how far the runs in outputs/ are: state, progress, time left, last line (ARGS="FOLDER --json")
	$(PY) scripts/status.py $(ARGS)

browser:  ## install Chromium on Debian (the tests open report.html and index.html in it; without it they are skipped)
	command -v chromium || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

architecture: $(READY)  ## draw docs/figures/architecture.svg again, from the imports
	$(PY) docs/draw_architecture.py

docs: $(READY)  ## the documentation as a site in build/site, by MkDocs, without a network; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --clean

hooks: $(READY)  ## run ruff and mypy before every commit (needs git; pre-commit is installed into the environment)
	$(PY) -m pip install --quiet pre-commit
	$(PY) -m pre_commit install

clean:  ## remove caches (never runs, data or the environment)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
