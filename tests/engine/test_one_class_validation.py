"""A validation set of one class: the training has a best checkpoint all the same."""

from __future__ import annotations

import shutil

import pytest

from ddl_d2.checkpoint.resume import read_lightly
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from tests.conftest import ROOT, make_tiny_set
from tests.engine.test_resumed_settings import CONFIG, SMALL


@pytest.mark.parametrize(("missing", "by"), [("real", "ddl/f1 + ddl/iou"), ("fake", "ddl/accuracy")])
def test_a_best_checkpoint(missing, by, tmp_path, caplog):
    data = make_tiny_set(tmp_path / "data")
    shutil.rmtree(data / "valid" / missing)
    (tmp_path / "output").mkdir()
    options = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(tmp_path / "output"), "SOLVER.MAX_ITER", "2"]
    options += ["DATASETS.TEST", "('ddl_i_valid',)", "TEST.EVAL_PERIOD", "1", "INPUT.MIN_SIZE_TEST", "64"]
    trainer = ForgeryTrainer(load_config(ROOT / CONFIG, [*SMALL, *options]))
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert read_lightly(tmp_path / "output/model_best.pth")["best_by"] == by
    assert (tmp_path / "output/model_best.safetensors").exists()
    assert f"ddl/final is not defined on these images: model_best is chosen by {by}" in caplog.text
