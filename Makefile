# `make quickstart` and `make test` install what they need into .venv and run; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUICKSTART ?= output/quickstart
REAL_DIR ?=

.PHONY: help install quickstart test lint format trials overfit clean

help:
	@echo "make install     everything into $(VENV)"
	@echo "make quickstart  forge a small set, train, evaluate, leave images and a table in $(QUICKSTART)"
	@echo "                 (REAL_DIR=folder of portraits to forge from your own)"
	@echo "make test        the test suite"
	@echo "make lint        ruff and mypy"
	@echo "make trials      the slow reliability trials"
	@echo "make overfit     each system learns eight images by heart"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py requirements/constraints.txt requirements/detectron2.txt tools/install_detectron2.sh $(wildcard ddl_d2/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt "setuptools" wheel ninja
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt --no-build-isolation -e ".[forgery,pretrained,mesorch,dev]"
	tools/install_detectron2.sh $(BIN)/python
	$(BIN)/python -m ddl_d2.collect_env
	touch $@

CONFIG := configs/quickstart/mask2former_efficientnet_lite0.yaml
STORE = $(QUICKSTART)/inference/ddl_i_valid/predictions
quickstart: $(INSTALLED)
	$(BIN)/python tools/make_forgeries.py $(if $(REAL_DIR),--real-dir "$(REAL_DIR)",--builtin) --output "$(QUICKSTART)/data" --overwrite
	$(BIN)/python tools/train_net.py --config-file $(CONFIG) DATASETS.DDL_ROOT "$(QUICKSTART)/data" OUTPUT_DIR "$(QUICKSTART)"
	$(BIN)/python tools/train_net.py --config-file $(CONFIG) --eval-only DATASETS.DDL_ROOT "$(QUICKSTART)/data" \
	    OUTPUT_DIR "$(QUICKSTART)" MODEL.WEIGHTS "$(QUICKSTART)/model_final.pth"
	$(BIN)/python tools/demo.py --config-file $(CONFIG) --input "$(QUICKSTART)"/data/valid/fake/*[05].* "$(QUICKSTART)"/data/valid/real/*[05].* \
	    --output "$(QUICKSTART)/images" --opts MODEL.WEIGHTS "$(QUICKSTART)/model_final.pth"
	$(BIN)/python tools/evaluate.py --predictions "$(STORE)" --dataset-root "$(QUICKSTART)/data" --split valid
	@echo "Images: $(QUICKSTART)/images   Metrics: $(STORE)/metrics.json   Weights: $(QUICKSTART)/model_final.pth"
	@echo "A toy: it learned, in minutes, the forgeries that tools/make_forgeries.py makes, and was tested on held-out ones of the same kind."

test: $(INSTALLED)
	$(BIN)/python -m pytest -q --durations=15

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

trials: $(INSTALLED)
	@status=0; for trial in $(filter-out trials/overfit_%,$(wildcard trials/[a-z]*.py)); do \
	    echo "== $$trial"; $(BIN)/python $$trial || status=1; done; exit $$status

overfit: $(INSTALLED)
	@status=0; for trial in trials/overfit_*.py; do echo "== $$trial"; $(BIN)/python $$trial || status=1; done; exit $$status

clean:
	rm -rf $(VENV) build *.egg-info ddl_d2/*.so output
