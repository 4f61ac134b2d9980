# `make quickstart` and `make test` install what they need into .venv and run; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUICKSTART ?= output/quickstart
REAL_DIR ?=

.PHONY: help install quickstart test test-lowest lint docs format trials reproduce overfit wheel gpu-check clean

help:
	@echo "New here? make quickstart, and read README.md meanwhile. Then: source $(VENV)/bin/activate; ddl-d2 --help"
	@echo
	@echo "make install     everything into $(VENV)"
	@echo "make quickstart  forge a small set, train, evaluate, leave images and a table in $(QUICKSTART)"
	@echo "                 (REAL_DIR=folder of portraits to forge from your own)"
	@echo "make test        the test suite"
	@echo "make test-lowest its data half, with the lowest versions allowed"
	@echo "make lint        ruff and mypy"
	@echo "make docs        the documentation as a site, in site/"
	@echo "make trials      the slow reliability trials"
	@echo "make reproduce   every row of docs/reproduce.md, in miniature: training, test, table"
	@echo "make overfit     each system learns eight images by heart"
	@echo "make wheel       a manylinux wheel for each Python here, tried in a fresh environment (PYTHONS=\"python3.11 ...\")"
	@echo "make gpu-check   whether all is right on a GPU, and how fast (DEVICE=cpu: the same in miniature, without one)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py requirements/constraints.txt ddl_d2/cli/install_detectron2.py $(wildcard ddl_d2/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt "setuptools" wheel ninja
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt --no-build-isolation -e ".[forgery,pretrained,mesorch,dev]"
	$(BIN)/ddl-d2 install-detectron2
	$(BIN)/ddl-d2 info
	touch $@
	@echo
	@echo "Installed. Now type:  source $(VENV)/bin/activate"

DDL := $(BIN)/ddl-d2
STORE = $(QUICKSTART)/inference/ddl_i_valid/predictions
WEIGHTS = $(QUICKSTART)/model_final.safetensors
quickstart: $(INSTALLED)
	$(DDL) make-forgeries $(if $(REAL_DIR),--real-dir "$(REAL_DIR)",--builtin) --output "$(QUICKSTART)/data" --overwrite
	$(DDL) train --overwrite --config-file quickstart/mask2former_efficientnet_lite0 DATASETS.DDL_ROOT "$(QUICKSTART)/data" OUTPUT_DIR "$(QUICKSTART)"
	$(DDL) train --eval-only MODEL.WEIGHTS "$(WEIGHTS)"
	$(DDL) evaluate --predictions "$(STORE)" --dataset-root "$(QUICKSTART)/data" --split valid
	$(DDL) predict "$(QUICKSTART)"/data/valid/fake/*[05].* "$(QUICKSTART)"/data/valid/real/*[05].* \
	    --weights "$(WEIGHTS)" --output "$(QUICKSTART)/images" --overwrite
	@echo
	@echo "Images: $(QUICKSTART)/images   Metrics: $(STORE)/metrics.json   Weights: $(WEIGHTS)"
	@echo "A toy: it learned, in minutes, the forgeries that ddl-d2 make-forgeries makes, and was tested on held-out ones of the same kind."
	@echo "Try it on an image of your own:  source $(VENV)/bin/activate && ddl-d2 predict your.jpg --weights $(WEIGHTS)"

test: $(INSTALLED)
	$(BIN)/python -m pytest -q --durations=15

LOWEST := $(VENV)-lowest
test-lowest: $(INSTALLED)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --no-deps -r requirements/lowest.txt
	@# Whatever is not listed there comes from $(VENV).
	echo "import site; site.addsitedir('$(abspath $(VENV))/lib/python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages')" \
	    > $$($(LOWEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rest.pth
	$(LOWEST)/bin/python -m pytest -q tests/io tests/faces tests/forging tests/data

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/mkdocs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt --no-build-isolation -e ".[docs]"
	touch $@

docs: $(BIN)/mkdocs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Site: site/index.html"

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

trials: $(INSTALLED)
	@status=0; for trial in $(filter-out trials/overfit_%,$(wildcard trials/[a-z]*.py)); do \
	    echo "== $$trial"; $(BIN)/python $$trial || status=1; done; exit $$status

reproduce: $(INSTALLED)
	$(BIN)/python trials/reproduce.py

overfit: $(INSTALLED)
	@status=0; for trial in trials/overfit_*.py; do echo "== $$trial"; $(BIN)/python $$trial || status=1; done; exit $$status

wheel: $(INSTALLED)
	VENV="$(abspath $(VENV))" .ci/wheel

DEVICE ?= cuda
gpu-check: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_check.py --device $(DEVICE) --output output/gpu_check

clean:
	rm -rf $(VENV) build *.egg-info ddl_d2/*.so output
