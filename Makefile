# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
GAMES ?= Freeway
SEEDS ?= 0
SCALE ?= quick
JOBS ?= 1
# One training uses two cores well, an analysis does not: most of it is emulators, each on one core.
ANALYSES ?= $(if $(filter 1,$(JOBS)),2,$(JOBS))
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
DEV := .venv/.installed-dev
comma := ,
space := $(subst ,, )
LIST = $(subst $(space),$(comma),$(strip $(1)))
# $(1) jobs at a time, of which each has cores/$(1) threads.
LAUNCHER = $(if $(filter-out 1,$(1)),hydra/launcher=joblib hydra.launcher.n_jobs=$(1))
GRID = env=$(call LIST,$(GAMES)) method=ddqn,sa_ddqn seed=$(call LIST,$(SEEDS)) scale=$(SCALE)
METHODS := ddqn ddqn_continued sa_ddqn sa_ddqn_ibp
# The evaluation that lies beside the reference policies of a scale.
EVALUATION = $(if $(filter standard,$(SCALE)),standard,paper)
REFERENCE = $(BIN)/python -m analyze -m env=Freeway scale=$(SCALE) policies_from=reference evaluation=$(EVALUATION) $(call LAUNCHER,$(ANALYSES))
# The seeds whose reference policy of method $(1) has its evaluation beside it.
evaluated = $(patsubst outputs/reference/$(SCALE)/Freeway/$(1)/seed%/metrics.json,%,$(sort $(wildcard outputs/reference/$(SCALE)/Freeway/$(1)/seed*/metrics.json)))
# Those seeds of method $(1) that have both policies of the pool of states.
seeds = $(filter $(call evaluated,ddqn),$(filter $(call evaluated,sa_ddqn),$(call evaluated,$(1))))

ERROR_WITHOUT_SEEDS = $(if $(strip $(foreach method,$(METHODS),$(call seeds,$(method)))),,\
	$(error no reference policy of scale=$(SCALE) comes with an evaluation; there are scales: $(notdir $(wildcard outputs/reference/*))))

# Own states first: of two jobs side by side that need the same roll-out one would wait for the other.
define MAPS_OF
	$(REFERENCE) states_from=own,pool method=$(1) seed=$(call LIST,$(call seeds,$(1))) controls=0 $(ARGS)

endef

.PHONY: help install reproduce maps controls report results test test-bitwise test-slow test-kills test-fuzz \
	test-slurm test-ray lint format bench-maps bench-train bench-wheels bench-gpu bench-cost clean

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")'
	@echo 'Installing pinned packages into .venv: a few minutes, most of them for torch.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[workspace,joblib,slurm]'
	@touch $@

$(DEV): $(INSTALLED)
	@echo 'Installing the packages that tests and benchmarks need as well.'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## create .venv with the pinned dependencies

reproduce: $(INSTALLED) ## train, map and report: GAMES="Freeway" SEEDS="0" SCALE=quick JOBS=1 ANALYSES=2
	$(BIN)/python -m train -m $(GRID) $(call LAUNCHER,$(JOBS)) $(ARGS)
	$(BIN)/python -m analyze -m states_from=own,pool $(GRID) $(call LAUNCHER,$(ANALYSES)) $(ARGS)
	$(BIN)/python -m analyze.report $(filter outputs=%,$(ARGS))

maps: $(INSTALLED) ## map the reference policies of Freeway that come with an evaluation: SCALE=quick ANALYSES=2
	$(ERROR_WITHOUT_SEEDS)$(foreach method,$(METHODS),$(if $(call seeds,$(method)),$(call MAPS_OF,$(method))))
	$(BIN)/python -m analyze.report $(filter outputs=%,$(ARGS))

controls: $(INSTALLED) ## random and shuffled weights on the states of the reference policies of seed 0
	$(ERROR_WITHOUT_SEEDS)$(REFERENCE) method=$(call LIST,$(foreach method,$(METHODS),$(if $(filter 0,$(call seeds,$(method))),$(method)))) \
		seed=0 states_from=pool controls=3 $(ARGS)
	$(BIN)/python -m analyze.report $(filter outputs=%,$(ARGS))

report: $(INSTALLED) ## build outputs/report/index.html from what lies under outputs/
	$(BIN)/python -m analyze.report $(filter outputs=%,$(ARGS))

results: $(DEV) ## write the tables of the documents from the committed records and timings
	$(BIN)/python -m analyze.documents
	$(BIN)/python -m bench.documents

test: $(DEV) ## the fast tests
	$(BIN)/python -m pytest -n auto --dist loadfile

test-bitwise: $(DEV) ## the tests of everything that is documented as equal bit for bit
	$(BIN)/python -m pytest -m 'bitwise and not slow and not slurm and not ray' -n auto --dist loadfile

test-slow: $(DEV) ## the tests that take longer
	$(BIN)/python -m pytest -m slow

test-kills: $(DEV) ## commands killed 200 times at random moments, their results compared byte for byte
	NRMAP_KILLS=200 $(BIN)/python -m pytest -m slow -s tests/test_kills.py

test-fuzz: $(DEV) ## ten minutes of mutated files and settings
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile=fuzz

test-slurm: $(DEV) ## a sweep on a real SLURM of two nodes, started here
	$(BIN)/python -m pytest -m slurm -rs tests/clusters

test-ray: $(DEV) ## a sweep on a real Ray cluster of two nodes, started here
	$(BIN)/python -m pytest -m ray -rs tests/clusters

lint: $(DEV) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-maps: $(DEV) ## time the ablation engine against its rivals
	$(BIN)/python -m bench.maps

bench-train: $(DEV) ## time training against its rivals
	$(BIN)/python -m bench.train

bench-wheels: $(INSTALLED) ## packages that a GPU machine without a network may lack, into bench/wheels
	bench/wheels.sh

bench-gpu: ## all that needs a GPU, in under 10 minutes, with the Python that has torch: PYTHON=python3
	$(PYTHON) -m bench.gpu $(ARGS)

bench-cost: $(DEV) ## what the paper's study would cost, from those timings and a minute of its own
	$(BIN)/python -m bench.cost --measure

clean: ## remove .venv and caches, keep outputs/
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
