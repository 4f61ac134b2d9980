"""SOLVER.EMA from the trainer's side: what is exported, evaluated and resumed."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file
from torch import nn

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.checkpoint.saving import read_metadata, save_tensors
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.solver.ema import AveragedWeights
from tests.conftest import ROOT, TINY
from tests.ranks import on_ranks


def _config(data, output, iterations, *opts):
    return load_config(
        ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml",
        [
            *TINY,
            "DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output), "SEED", "1",
            "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", str(iterations), "SOLVER.CHECKPOINT_PERIOD", "2",
            "SOLVER.WARMUP_ITERS", "0", "SOLVER.LR_SCHEDULER_NAME", "WarmupLinearTailLR", "SOLVER.TAIL_START", "1.0",
            "SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", "0.9",
            "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", *opts,
        ],
    )  # fmt: skip


def _train(cfg, *, resume=False):
    torch.manual_seed(0)  # the first weights; the command line seeds them by SEED
    trainer = ForgeryTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory):
    output = tmp_path_factory.mktemp("averaged")
    _train(_config(tiny_set, output, 4))
    return output


def test_the_export_is_the_average_and_the_checkpoint_holds_both(trained):
    checkpoint = torch.load(trained / "model_final.pth", weights_only=True)
    exported = load_file(trained / "model_final.safetensors")
    own, average = checkpoint["model"], checkpoint["ema"]["weights"]
    assert checkpoint["ema"]["steps"] == 4
    assert all(torch.equal(exported[name], value) for name, value in average.items())
    assert any(not torch.equal(own[name], value) for name, value in average.items())


def test_a_resumed_run_averages_as_one_that_was_never_interrupted(trained, tiny_set, tmp_path):
    _train(_config(tiny_set, tmp_path, 2))
    _train(_config(tiny_set, tmp_path, 4), resume=True)
    whole, resumed = (load_file(folder / "model_final.safetensors") for folder in (trained, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_export_that_a_crash_left_behind_is_made_of_the_average(trained, tiny_set, tmp_path):
    _train(_config(tiny_set, tmp_path, 4))
    expected = load_file(tmp_path / "model_final.safetensors")
    save_tensors(str(tmp_path / "model_final.safetensors"), {"x": torch.zeros(1)}, iteration="old")
    trainer = ForgeryTrainer(_config(tiny_set, tmp_path, 4))
    trainer.resume_or_load(resume=True)
    found = load_file(tmp_path / "model_final.safetensors")
    assert read_metadata(str(tmp_path / "model_final.safetensors"))["iteration"] == "3"
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_evaluation_sees_the_average_and_training_goes_on_with_its_own(trained, tiny_set, tmp_path, monkeypatch):
    seen = []

    def remember(cls, cfg, model, evaluators=None):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    monkeypatch.setattr(ForgeryTrainer, "test", classmethod(remember))
    trainer = _train(_config(tiny_set, tmp_path, 4, "TEST.EVAL_PERIOD", "4"))
    average = trainer.averaged.state_dict()["weights"]
    assert all(torch.equal(seen[-1][name], value) for name, value in average.items())
    assert any(not torch.equal(trainer.model.state_dict()[name], value) for name, value in average.items())


def test_a_checkpoint_predicts_by_its_average(trained, tiny_set, tmp_path):
    cfg = _config(tiny_set, tmp_path, 4, "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    model = build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS)
    average = torch.load(trained / "model_final.pth", weights_only=True)["ema"]["weights"]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in average.items())


class _Statistics(nn.Module):
    """A weight, and a running statistic that each rank has of its own."""

    def __init__(self, rank):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.norm.running_mean.fill_(float(rank))


def _evaluated(rank):
    trainer = SimpleNamespace(model=_Statistics(rank), cfg=None)
    trainer.averaged = AveragedWeights(trainer.model, 0.9)
    trainer._exported = trainer.averaged.in_place
    trainer.test = lambda cfg, model: model.norm.running_mean.item()
    return ForgeryTrainer._evaluate(trainer), trainer.model.norm.running_mean.item()


def test_all_ranks_evaluate_the_average_that_is_saved():
    # That of rank 0; afterwards each has its own again.
    assert on_ranks(_evaluated, 2) == [(0.0, 0.0), (0.0, 1.0)]
