"""Test-time adaptation: the published steps, and what it may read and change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from ddl_d2.data.build import Unlabeled, build_adaptation_loader
from ddl_d2.data.datasets import register_datasets
from ddl_d2.engine.adapt import adaptation_config
from ddl_d2.engine.step import TrainingStep
from ddl_d2.errors import ConfigError
from ddl_d2.modeling.mask2former import criterion as criterion_module
from ddl_d2.modeling.mask2former import matcher as matcher_module
from ddl_d2.solver.build import build_lr_scheduler, build_optimizer
from ddl_d2.solver.freezing import freeze
from tests.loupe_small import CLASSIFIER_ONLY, SMALL_LOUPE
from tests.modeling.loupe.published import filling, published_loupe, published_rows


@pytest.fixture
def config(tiny_cfg, tiny_set):
    """`config(KEY, VALUE, ...)` -> the config that the tiny validation set, 6 images, is predicted with."""

    def build(*opts):
        cfg = tiny_cfg(*SMALL_LOUPE, "DATASETS.DDL_ROOT", str(tiny_set), "DATASETS.TEST", "('ddl_i_valid',)", *opts)
        register_datasets(cfg)
        return cfg

    return build


def test_four_steps_are_the_published_ones(config, shared, monkeypatch):
    """Loss and norm of the gradient before each of four steps at a constant rate, points on a grid."""
    expected = np.load(shared / "reference" / "loupe" / "loupe_small.npz")
    grid = filling(shared).grid_points(16)[None]
    monkeypatch.setattr(matcher_module.torch, "rand", lambda *size, **options: grid)
    chosen = "get_uncertain_point_coords_with_randomness"
    monkeypatch.setattr(criterion_module, chosen, lambda masks, *rest: grid.expand(len(masks), -1, -1))
    model = published_loupe(shared, "small").train()
    model.adapt_above = 0.5
    cfg = adaptation_config(config())
    freeze(model, cfg.SOLVER.FREEZE)
    rows = [{key: row[key] for key in ("image", "height", "width")} for row in published_rows(shared, "small")]
    optimizer = build_optimizer(cfg, model)
    norms, losses = [], []

    class Watched(TrainingStep):
        def after_backward(self):
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))

        def _write_metrics(self, found, data_time):
            losses.append(float(sum(found.values())))

    step = Watched(model, [rows] * 4, optimizer, precision="float32")
    with EventStorage():
        for step.iter in range(4):
            step.run_step()
    assert losses == pytest.approx(expected["adapt_losses"], rel=1e-4)
    assert norms == pytest.approx(expected["adapt_grad_norms"], rel=1e-4)


def test_the_recipe_is_the_published_one(config):
    """100 steps: the rate rises over the first ten, and falls as a half cosine over the last ten."""
    cfg = adaptation_config(config("TEST.ADAPT.BATCH_SIZE", "3", "TEST.ADAPT.EPOCHS", "50"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.IMS_PER_BATCH) == (100, 10, 3)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    optimizer = build_optimizer(cfg, model)
    decays = {p.dim(): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-3, 0.0]
    assert decays[2] == 1e-3
    schedule, rates = build_lr_scheduler(cfg, optimizer), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"] / 1e-4)
        optimizer.step()
        schedule.step()
    assert [rates[step] for step in (0, 5, 10, 89, 95)] == pytest.approx([0, 0.5, 1, 1, 0.5], abs=1e-6)


def test_of_a_row_only_the_image_is_known():
    row = {"file_name": "fake/a.png", "image_id": "a", "is_fake": 1, "mask_file_name": "m.png", "fully_forged": True}
    assert Unlabeled([row])[0] == {"file_name": "fake/a.png", "image_id": "a"}


def test_rows_to_adapt_to_are_those_of_testing(config):
    cfg = adaptation_config(config("TEST.ADAPT.BATCH_SIZE", "3", "INPUT.RANDOM_FLIP", "horizontal"))
    batches = iter(build_adaptation_loader(cfg))
    rows = next(batches) + next(batches)
    assert len({row["image_id"] for row in rows}) == 6
    assert all(row.keys() == {"file_name", "image_id", "image", "height", "width"} for row in rows)


@pytest.mark.parametrize(
    ("opts", "says"),
    [
        (
            ["MODEL.META_ARCHITECTURE", "ForgeryMask2Former"],
            "ForgeryMask2Former cannot be adapted: give weights of Loupe",
        ),
        (CLASSIFIER_ONLY, r"this Loupe is its classifier \(stage 1\).* give weights of stage 2 or 3"),
        (["MODEL.LOUPE.PATCH_HEAD", "False"], "without patches there are no pseudo-labels"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST names 0 datasets"),
        (["DATASETS.TEST", "('ddl_i_valid', 'ddl_i_train')"], "DATASETS.TEST names 2 datasets"),
    ],
)
def test_what_cannot_be_adapted_is_refused(config, opts, says):
    with pytest.raises(ConfigError, match=says):
        adaptation_config(config(*opts))


def test_faces_are_not_adapted_to_one_by_one(config):
    with pytest.raises(ConfigError, match="set INPUT.FACE_CROP.ENABLED False"):
        build_adaptation_loader(adaptation_config(config("INPUT.FACE_CROP.ENABLED", "True")))
