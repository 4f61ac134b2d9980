"""What a user changes before `--resume` is applied, or refused by name; config.yaml is what was trained with."""

from __future__ import annotations

import re

import pytest
import torch

from ddl_d2.checkpoint.changed_keys import REFUSED, check_resumable
from ddl_d2.cli import train as train_command
from ddl_d2.config.load import config_from_text, read_config
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError
from tests.conftest import ROOT, TINY

CONFIG = "configs/quickstart/mask2former_efficientnet_lite0.yaml"
SMALL = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "TEST.EVAL_PERIOD", "0", "DATASETS.TEST", "()",
]  # fmt: skip


def _trainer(data, output, *options, resume=False):
    folders = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output)]
    trainer = ForgeryTrainer(load_config(ROOT / CONFIG, [*SMALL, *folders, *map(str, options)]))
    trainer.resume_or_load(resume=resume)
    return trainer


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory):
    """Two of four steps, and what the optimizer remembers of each parameter by name."""
    output = tmp_path_factory.mktemp("trained")
    trainer = _trainer(tiny_set, output, "SOLVER.MAX_ITER", 2)
    trainer.train()
    return output, _remembered(trainer)


def _remembered(trainer):
    state = trainer.optimizer.state
    return {name: state[p]["exp_avg"].clone() for name, p in trainer.model.named_parameters() if p in state}


@pytest.mark.parametrize(
    "options",
    [
        {"BASE_LR": 3e-4},
        {"WEIGHT_DECAY": 0.2},
        {"WEIGHT_DECAY_NORM": 0.03},  # another number of groups
        {"BACKBONE_MULTIPLIER": 1.0},  # likewise
        {"BASE_LR": 1e-3, "WEIGHT_DECAY": 0.0, "BACKBONE_MULTIPLIER": 0.5, "WEIGHT_DECAY_EMBED": 0.01},
        {"LR_SCHEDULER_NAME": "WarmupLinearTailLR", "TAIL_START": 0.0},
        {"AMP.ENABLED": True},
    ],
    ids=lambda options: " ".join(options),
)
def test_rates_decays_and_schedule_are_those_of_the_command_line(trained, tiny_set, options):
    output, remembered = trained
    words = [word for key, value in options.items() for word in (f"SOLVER.{key}", value)]
    resumed = _trainer(tiny_set, output, *words, resume=True)
    assert resumed.start_iter == 2
    fresh = _trainer(tiny_set, output / "other", *words)
    for _ in range(2):
        fresh.optimizer.step()
        fresh.scheduler.step()
    for ours, theirs in zip(resumed.optimizer.param_groups, fresh.optimizer.param_groups, strict=True):
        assert [p.shape for p in ours["params"]] == [p.shape for p in theirs["params"]]
        assert {k: v for k, v in ours.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}
    after = _remembered(resumed)
    assert after.keys() == remembered.keys()
    assert all(torch.equal(after[name], value) for name, value in remembered.items())


def test_momentum_of_sgd(tiny_set, tmp_path):
    sgd = ("SOLVER.OPTIMIZER", "SGD")
    _trainer(tiny_set, tmp_path, *sgd, "SOLVER.MAX_ITER", 2).train()
    resumed = _trainer(tiny_set, tmp_path, *sgd, "SOLVER.MOMENTUM", 0.5, resume=True)
    assert {group["momentum"] for group in resumed.optimizer.param_groups} == {0.5}


REFUSALS = [
    ("SOLVER.OPTIMIZER", "SGD", "'ADAMW'"),
    ("SEED", "5", "-1"),
    ("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]", r"\[127"),
    ("MODEL.MASK_FORMER.NHEADS", "8", "4"),
    ("MODEL.WEIGHTS", "other.pth", "''"),
    ("DATALOADER.SAMPLER_TRAIN", "TrainingSampler", "'ClassBalancedSampler'"),
    ("SOLVER.EMA.ENABLED", "True", "False"),
    ("INPUT.SELF_BLEND.ENABLED", "True", "False"),
    ("DATASETS.TRAIN", "('ddl_i_valid',)", r"\['ddl_i_train'\]"),
]


@pytest.mark.parametrize(("key", "new", "saved"), REFUSALS)
def test_what_a_checkpoint_holds_is_refused_by_name(trained, tiny_set, key, new, saved, capsys):
    """By the command line, before config.yaml is replaced."""
    output, _ = trained
    (output / "config.yaml").write_text("as it was")
    folders = ["DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(output)]
    with pytest.raises(SystemExit) as caught:
        train_command.main(["--config-file", CONFIG, "--resume", *SMALL, *folders, key, new, "SOLVER.MOMENTUM", "0.5"])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: --resume cannot change what the checkpoint holds: {key} was ")
    assert re.search(rf"{re.escape(key)} was {saved}.*, is now ", said)
    assert "MOMENTUM" not in said
    assert len(said.splitlines()) == 1
    assert (output / "config.yaml").read_text() == "as it was"


def test_the_trainer_alone_refuses_too_and_names_all(trained, tiny_set):
    output, _ = trained
    several = "SEED was -1, is now 3; SOLVER.EMA.ENABLED was False, is now True; SOLVER.OPTIMIZER was 'ADAMW'"
    with pytest.raises(ConfigError, match=several):
        _trainer(tiny_set, output, "SOLVER.OPTIMIZER", "SGD", "SOLVER.EMA.ENABLED", True, "SEED", 3, resume=True)


def test_fewer_steps_than_are_done(trained, tiny_set):
    with pytest.raises(ConfigError, match=r"^SOLVER\.MAX_ITER is 1: the checkpoint to resume from has done 2 steps$"):
        _trainer(tiny_set, trained[0], "SOLVER.MAX_ITER", 1, resume=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("OUTPUT_DIR", "/elsewhere"),
        ("SOLVER.MAX_ITER", "9"),
        ("SOLVER.CHECKPOINT_PERIOD", "9"),
        ("TEST.EVAL_PERIOD", "9"),
        ("DATALOADER.NUM_WORKERS", "3"),
        ("MODEL.DEVICE", "cuda"),
        ("MODEL.DETECTION.LOSS_WEIGHT", "0.5"),
        ("MODEL.TIMM.PRETRAINED", ""),
        ("INPUT.JPEG_PROB", "0.5"),
        ("DATASETS.DDL_ROOT", "/moved"),
    ],
)
def test_what_is_made_anew_may_change(key, value):
    before = read_config(ROOT / CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.TIMM.PRETRAINED", "a.pth"]).dump()
    (change,) = check_resumable(before, read_config(ROOT / CONFIG, _without_last(key, value)).dump())
    assert change.key == key


def _without_last(key, value):
    fixed = {"MODEL.DEVICE": "cpu", "MODEL.TIMM.PRETRAINED": "a.pth"} | {key: value}
    return [word for pair in fixed.items() for word in pair]


def test_refused_keys_exist():
    cfg = config_from_text("{}")
    for key in REFUSED:
        node = cfg
        for name in key.split("."):
            node = node[name]
