"""Training on cached tokens is training on images, but for the time it takes; tokens of anything else are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ddl_d2.cli import cache_tokens, train
from ddl_d2.io.image import write_png
from tests.conftest import TINY, make_tiny_set
from tests.loupe_small import CLASSIFIER_ONLY, SMALL_LOUPE

CONFIG = "quickstart/mask2former_efficientnet_lite0"
STAGES = {"classifier": CLASSIFIER_ONLY, "both": []}


class Run:
    """The tiny set, and commands on it."""

    def __init__(self, root):
        self.root = root
        self.data = make_tiny_set(root / "data")
        self.cache = ["MODEL.LOUPE.TOKEN_CACHE", str(root / "tokens")]

    def options(self, *opts):
        return ["--config-file", CONFIG, *TINY, *SMALL_LOUPE, "DATASETS.DDL_ROOT", str(self.data), *opts]

    def fill(self, *opts):
        assert cache_tokens.main(self.options(*self.cache, *opts)) == 0

    def train(self, name, *opts, flags=()):
        """Train into a folder; returns the lines of its metrics."""
        options = self.options(*opts, "OUTPUT_DIR", str(self.root / name))
        assert train.main([*flags, *options]) == 0
        lines = (self.root / name / "metrics.json").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def weights(self, name):
        return torch.load(self.root / name / "model_final.pth", weights_only=True)["model"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("ddl_d2.engine.trainer.LOG_PERIOD", 1)  # every step's losses
    return Run(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A run whose cache is filled, to be left as it is."""
    run = Run(tmp_path_factory.mktemp("filled"))
    run.fill(*CLASSIFIER_ONLY)
    return run


def losses_of(lines):
    return [{k: v for k, v in line.items() if "loss" in k} for line in lines if "total_loss" in line]


@pytest.mark.parametrize("stage", STAGES)
def test_losses_are_those_of_images(run, stage):
    run.fill(*STAGES[stage])
    of_images = run.train("images", *STAGES[stage])
    of_tokens = run.train("tokens_run", *STAGES[stage], *run.cache)
    assert len(losses_of(of_images)) == 4
    for expected, given in zip(losses_of(of_images), losses_of(of_tokens), strict=True):
        assert given == pytest.approx(expected, rel=1e-5)
    metrics = [next(line for line in lines if "ddl/auc" in line) for lines in (of_images, of_tokens)]
    assert metrics[0]["ddl/f1"] == pytest.approx(metrics[1]["ddl/f1"], abs=1e-3)


def test_a_resumed_run_is_as_one_that_was_not_stopped(run):
    run.fill(*CLASSIFIER_ONLY)
    opts = [*CLASSIFIER_ONLY, *run.cache, "DATASETS.TEST", "()", "SOLVER.POLY_LR_POWER", "0.0"]  # a constant rate
    run.train("whole", *opts)
    run.train("halves", *opts, "SOLVER.MAX_ITER", "2")
    run.train("halves", *opts, flags=["--resume"])
    ours, theirs = run.weights("halves"), run.weights("whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_images_in_tensorboard_are_the_files(run, monkeypatch):
    drawn = []
    monkeypatch.setattr("ddl_d2.engine.hooks.reports.draw_prediction", lambda image, *_: drawn.append(image) or image)
    run.fill(*CLASSIFIER_ONLY)
    run.train("tokens_run", *CLASSIFIER_ONLY, *run.cache, "VIS_PERIOD", "4", "DATASETS.TEST", "()")
    assert [image.shape for image in drawn] == [(64, 80, 3)] * 4


def test_a_file_that_cannot_be_read_is_skipped_as_everywhere(run):
    (run.data / "train" / "real" / "0.png").write_bytes(b"no image")
    run.fill(*CLASSIFIER_ONLY)
    lines = run.train(
        "tokens_run", *CLASSIFIER_ONLY, *run.cache, "DATASETS.TEST", "()", "DATALOADER.MAX_BAD_SHARE", "0.2"
    )
    (listed,) = [bad for line in lines for bad in line.get("bad_files", ())]
    assert listed["image_id"] == "real/0.png"


def test_half_precision_takes_half_and_learns_nearly_the_same(run):
    run.fill(*CLASSIFIER_ONLY)
    whole = sum(path.stat().st_size for path in (run.root / "tokens").glob("tokens-*"))
    run.cache = ["MODEL.LOUPE.TOKEN_CACHE", str(run.root / "half"), "MODEL.LOUPE.TOKEN_PRECISION", "float16"]
    run.fill(*CLASSIFIER_ONLY)
    half = sum(path.stat().st_size for path in (run.root / "half").glob("tokens-*"))
    assert half / whole == pytest.approx(0.5, abs=0.01)
    of_images = run.train("images", *CLASSIFIER_ONLY, "DATASETS.TEST", "()")
    of_tokens = run.train("tokens_run", *CLASSIFIER_ONLY, *run.cache, "DATASETS.TEST", "()")
    assert losses_of(of_tokens)[-1] == pytest.approx(losses_of(of_images)[-1], rel=1e-2)


@pytest.mark.parametrize(
    ("opts", "says"),
    [
        (["SOLVER.FREEZE", "[]"], 'the backbone is trained .* freeze it (SOLVER.FREEZE ["backbone"]), or leave the'),
        (
            ["INPUT.RANDOM_FLIP", "horizontal"],
            "this config changes them; set INPUT.RANDOM_FLIP none, or leave the cach",
        ),
        (["SEED", "4"], "holds other tokens than this config and its weights make (weights "),
        (["MODEL.LOUPE.INPUT_SIZE", "96"], "(input_size 64 there, 96 here): use those, or fill another folder with"),
        (["MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"], "there, [1.0, 1.0, 1.0] here)"),
        (["MODEL.LOUPE.TOKEN_PRECISION", "float16"], "(precision float32 there, float16 here)"),
        (["INPUT.MIN_SIZE_TRAIN", "(32,)"], "(fitted as they are there, [32, "),
        (["MODEL.TIMM.DROP_PATH_RATE", "0.1"], "the backbone computes otherwise in training (backbone.body.blocks."),
        (["MODEL.LOUPE.TOKEN_CACHE", "nowhere"], "nowhere: holds no tokens"),
        (["MODEL.META_ARCHITECTURE", "ForgeryMask2Former"], "ForgeryMask2Former reads images: leave it empty"),
    ],
)
def test_other_tokens_are_refused_in_one_line(filled, capsys, opts, says):
    with pytest.raises(SystemExit) as stopped:
        filled.train("tokens_run", *CLASSIFIER_ONLY, *filled.cache, *opts)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    before, _, after = says.partition(" .* ")
    assert before in line
    assert after in line


def test_a_changed_file_is_refused_in_one_line(run, capsys):
    run.fill(*CLASSIFIER_ONLY)
    write_png(run.data / "train" / "real" / "0.png", np.zeros((64, 80, 3), np.uint8))
    with pytest.raises(SystemExit):
        run.train("tokens_run", *CLASSIFIER_ONLY, *run.cache)
    assert "1 of 8 training images looked at have no tokens there, such as " in capsys.readouterr().err
    run.fill(*CLASSIFIER_ONLY)
    run.train("tokens_run", *CLASSIFIER_ONLY, *run.cache, "DATASETS.TEST", "()")


def test_evaluation_of_weights_needs_no_tokens(run):
    run.fill(*CLASSIFIER_ONLY)
    run.train("tokens_run", *CLASSIFIER_ONLY, *run.cache, "DATASETS.TEST", "()")
    for path in (run.root / "tokens").iterdir():
        path.unlink()
    weights = ["MODEL.WEIGHTS", str(run.root / "tokens_run" / "model_final.safetensors")]
    opts = [*weights, "OUTPUT_DIR", str(run.root / "tokens_run")]
    assert train.main(["--eval-only", *run.options(*CLASSIFIER_ONLY, *run.cache, *opts)]) == 0
