"""tools/train_net.py as a user runs it: train, resume, evaluate, on one and on two processes, and with bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, TINY

CONFIG = "configs/quickstart/mask2former_efficientnet_lite0.yaml"
NAME = "quickstart/mask2former_efficientnet_lite0"
SMALL = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.CHECKPOINT_PERIOD", "2",
    "SOLVER.MAX_ITER", "4",
    "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64",
    "INPUT.CROP.SIZE", "[64, 64]",
]  # fmt: skip


def _run(*words: str, launcher: list[str] | None = None, check: bool = True) -> subprocess.CompletedProcess:
    command = [*(launcher or [sys.executable]), "tools/train_net.py", *words]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def _options(data: Path, output: Path, *more: str) -> list[str]:
    return [*SMALL, "DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output), *more]


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory) -> Path:
    """Four steps with two evaluations, images in TensorBoard and the best checkpoint."""
    output = tmp_path_factory.mktemp("trained")
    _run("--config-file", CONFIG, *_options(tiny_set, output, "TEST.EVAL_PERIOD", "2", "VIS_PERIOD", "2"))
    return output


def test_training_leaves_what_a_user_expects(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "model_best.pth", "model_final.pth", "last_checkpoint"} <= names
    assert {"model_best.safetensors", "model_final.safetensors"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    log = (trained / "log.txt").read_text()
    assert "eta:" in log
    assert "loss_det" in log
    metrics = json.loads((trained / "inference" / "ddl_i_valid" / "metrics.json").read_text())
    assert metrics["num_images"] == 6
    assert metrics["num_fake"] == 3


def test_tensorboard_holds_images(trained):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained))
    events.Reload()
    assert any(tag.startswith("predictions/") for tag in events.Tags()["images"])
    assert "ddl/final" in events.Tags()["scalars"]


def test_eval_only_writes_metrics_and_a_store_that_scores_the_same(trained, tiny_set, tmp_path):
    weights = str(trained / "model_final.safetensors")
    _run("--config-file", CONFIG, "--eval-only", *_options(tiny_set, tmp_path, "MODEL.WEIGHTS", weights))
    folder = tmp_path / "inference" / "ddl_i_valid"
    metrics = json.loads((folder / "metrics.json").read_text())
    store = folder / "predictions"
    assert (store / "predictions.csv").is_file()
    assert json.loads((store / "meta.json").read_text())["weights_sha256"]
    command = [sys.executable, "tools/evaluate.py", "--predictions", str(store), "--dataset-root", str(tiny_set)]
    subprocess.run([*command, "--split", "valid"], cwd=ROOT, check=True, capture_output=True, timeout=200)
    again = json.loads((store / "metrics.json").read_text())
    for key in ("auc", "f1", "iou", "final", "pooled_f1", "miou", "num_images"):
        assert again[key] == pytest.approx(metrics[key], abs=1e-9), key


def test_resume_goes_on_where_it_stopped(trained, tiny_set, tmp_path):
    _run("--config-file", NAME, *_options(tiny_set, tmp_path, "TEST.EVAL_PERIOD", "0", "DATASETS.TEST", "()"))
    _run(
        "--config-file", CONFIG, "--resume",
        *_options(tiny_set, tmp_path, "TEST.EVAL_PERIOD", "0", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "6"),
    )  # fmt: skip
    assert "Starting training from iteration 4" in (tmp_path / "log.txt").read_text()
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 5
    assert final["trainer"]["_trainer"]["data_loader"]["position"] == 6 * 4


@pytest.mark.parametrize("launcher", ["detectron2", "torchrun"])
def test_two_processes_on_the_cpu(launcher, tiny_set, tmp_path):
    # Data workers, as in a single process, are forked.
    options = _options(tiny_set, tmp_path, "TEST.EVAL_PERIOD", "4", "DATALOADER.NUM_WORKERS", "1")
    if launcher == "torchrun":
        prefix = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        _run("--config-file", CONFIG, *options, launcher=prefix)
    else:
        _run("--config-file", CONFIG, "--num-gpus", "2", "--dist-url", "auto", *options)
    metrics = json.loads((tmp_path / "inference" / "ddl_i_valid" / "metrics.json").read_text())
    assert metrics["num_images"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-file", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["--config-file", CONFIG, "SOLVER.NO_SUCH", "1"], "NO_SUCH"),
        (["--config-file", CONFIG, "DATASETS.DDL_ROOT", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--config-file", CONFIG, "--eval-only"], "MODEL.WEIGHTS"),
        (["--config-file", CONFIG, "--eval-only", "MODEL.WEIGHTS", "gone.pth"], "gone.pth: no such weights file"),
        (["--config-file", CONFIG, "MODEL.TIMM.NAME", "no_such_model"], "timm has no model 'no_such_model'"),
        (["--config-file", "configs/ddl_i/mask2former_resnet50.yaml", *TINY], "SyncBN trains on GPUs only"),
    ],
)
def test_bad_input_is_one_line(words, message, tiny_set, tmp_path):
    root = [] if "DATASETS.DDL_ROOT" in words else ["DATASETS.DDL_ROOT", str(tiny_set)]
    done = _run(*words, *root, "OUTPUT_DIR", str(tmp_path / "out"), check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def test_a_checkpoint_that_does_not_fit_is_refused_with_a_list(trained, tiny_set, tmp_path):
    options = _options(tiny_set, tmp_path, "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    wider = ["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "9"]
    done = _run("--config-file", CONFIG, "--eval-only", *options, *wider, check=False)
    assert done.returncode == 2
    assert "query_feat.weight (file (6, 32), model (9, 32))" in done.stderr
    assert not (tmp_path / "inference/ddl_i_valid").exists()
