import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.data import build_faces
from ddl_d2.data.datasets import register_datasets
from ddl_d2.engine.step import TrainingStep
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import NonFiniteError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.modeling.meta_arch import BATFD
from ddl_d2.modeling.test_time.faces import OnFaceCrops
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.solver.build import build_optimizer
from tests.conftest import CONFIGS, ROOT


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return {"loss_good": self.weight.sum(), "loss_bad": self.weight.sum() * batch[0]["value"]}


def _step(values, precision="float32"):
    model = _Model()
    loader = [[{"image_id": f"train/fake/{i}.png", "value": v}] for i, v in enumerate(values)]
    step = TrainingStep(model, loader, torch.optim.SGD(model.parameters(), 0.1), precision=precision)
    step._write_metrics = lambda *args: None
    return model, step


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_updates(precision):
    model, step = _step([1.0], precision)
    step.run_step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 2)  # d(w + w)/dw = 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_update_and_names_the_images(bad):
    model, step = _step([1.0, bad])
    step.run_step()
    before = model.weight.item()
    with pytest.raises(NonFiniteError, match=r"loss_bad .*train/fake/1\.png") as caught:
        step.run_step()
    assert "loss_good" not in str(caught.value)
    assert caught.value.image_ids == ["train/fake/1.png"]
    assert model.weight.item() == before


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_config_takes_a_step(path, tiny_cfg, make_row, make_clip_row):
    """Its own optimizer, clipping and sharpness-aware minimization; small images, fp32."""
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.RESNETS.NORM", "BN", config=str(path.relative_to(ROOT / "configs")))
    model = build_model(cfg).train()
    sam_rho = cfg.SOLVER.SAM.RHO if cfg.SOLVER.SAM.ENABLED else 0.0
    rows = [make_row(0, size=(64, 64)), make_row(1, fake=False, size=(64, 64))]
    if isinstance(model, BATFD):
        rows = [make_clip_row(0), make_clip_row(1, fake=False)]
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    step = TrainingStep(model, [rows], build_optimizer(cfg, model), precision="float32", sam_rho=sam_rho)
    step._write_metrics = lambda *args: None
    step.run_step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    after = dict(model.named_parameters())
    assert sum(not torch.equal(after[name], p) for name, p in before.items()) > len(before) // 2


class _LeftHalf:
    """A face in the left half of every image."""

    settings: ClassVar = {"name": "left half"}

    def __call__(self, image):
        height, width = image.shape[:2]
        return [Face((0, 0, width / 2, height), np.full((5, 2), 9.0))]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_on_face_crops(tiny_cfg, tiny_set, tmp_path, monkeypatch, workers):
    """A model as it is while training, and the one that its checkpoint gives, are evaluated alike: on crops."""
    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: CachedFaceFinder(_LeftHalf(), tmp_path / "faces"))
    cfg = tiny_cfg(
        "INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "64",
        "INPUT.FACE_CROP.ENABLED", "True", "INPUT.FACE_CROP.MARGIN", "0.0",
        "DATASETS.DDL_ROOT", str(tiny_set), "DATASETS.TEST", "('ddl_i_valid',)",
        "DATALOADER.NUM_WORKERS", str(workers), "OUTPUT_DIR", str(tmp_path / "out"),
    )  # fmt: skip
    register_datasets(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    results = ForgeryTrainer.test(cfg, model)
    assert model.training
    assert results["ddl"]["num_images"] == 6
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    trained = build_trained_model(cfg)
    assert isinstance(trained, OnFaceCrops)
    assert not trained.training
    assert set(trained.state_dict()) == set(model.state_dict())
    evaluator = ForgeryTrainer.build_evaluator(cfg, "ddl_i_valid", save_predictions=True)
    again = ForgeryTrainer.test(cfg, trained, [evaluator])
    assert json.dumps(again) == json.dumps(results)
    # Nothing is forged outside the crops: 40 of the 80 columns.
    store = PredictionStore(tmp_path / "out/inference/ddl_i_valid/predictions")
    assert all(store.read_map(row)[:, 40:].max() == 0 for row in store)


class _Draws(torch.nn.Module):
    """A loss that is drawn."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.drawn = []

    def forward(self, batch):
        self.drawn.append(torch.rand(()).item())
        return {"loss": self.weight.sum()}


def test_random_numbers_of_a_step_follow_from_the_run_and_the_iteration():
    def draw(seed, iterations):
        model = _Draws()
        step = TrainingStep(
            model, [[{}]] * 4, torch.optim.SGD(model.parameters(), 0.1), precision="float32", seed=lambda: seed
        )
        step._write_metrics = lambda *args: None
        for step.iter in iterations:
            step.run_step()
            torch.rand(7)  # whatever else draws between two steps
        return model.drawn

    whole = draw(3, range(4))
    assert len(set(whole)) == 4
    assert draw(3, (2, 3)) == whole[2:]
    assert draw(4, range(4)) != whole


def test_a_request_to_stop_is_agreed_on_in_the_next_step():
    _, step = _step([1.0, 1.0])
    step.run_step()
    assert not step.stop_agreed
    step.request_stop()
    assert not step.stop_agreed
    step.run_step()
    assert step.stop_agreed
