"""What every config promises, whatever system it builds: one test over all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.modeling.system import ForgerySystem
from tests.conftest import CONFIGS, ROOT

# SyncBN exists on GPUs only; its parameters are BN's.
_OPTS = ["MODEL.RESNETS.NORM", "BN"]


@pytest.fixture(params=CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def model(request, tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*_OPTS, config=str(request.param.relative_to(ROOT / "configs"))))


def test_system(model, make_row):
    """One pass over the promises, so that each network is built once."""
    assert isinstance(model, ForgerySystem)
    assert all(type(m) is not nn.Linear for m in model.modules())  # `use_fast_layers` was called
    check_system(model, make_row)


def check_system(model, make_row):
    """Hold a system to the contract that `ddl_d2/modeling/system.py` writes down."""
    _trains(model, make_row)
    _predicts(model, make_row)
    _survives_a_round_trip(model)


def _trains(model, make_row):
    model.train()
    batch = [make_row(0, fake=True, size=(65, 97)), make_row(1, fake=False, size=(96, 64))]
    losses = model(batch)
    assert losses
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    # A batch in which nothing is forged: most users' first crash. Every parameter must still be reached (DDP).
    losses = model([make_row(2, fake=False), make_row(3, fake=False)])
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.zero_grad()


def _predicts(model, make_row):
    model.eval()
    rows = [make_row(0, size=(33, 70)), make_row(1, size=(64, 41))]
    rows[0] |= {"height": 101, "width": 57}  # the original's size
    with torch.no_grad():
        outputs = model([{k: v for k, v in row.items() if k not in ("instances", "is_fake")} for row in rows])
    for row, output in zip(rows, outputs, strict=True):
        size = (row["height"], row["width"])
        assert isinstance(output["fake_score"], float)
        assert 0 <= output["fake_score"] <= 1
        if "forgery_map" not in output:  # a system that only detects
            assert output["instances"].image_size == size
            assert output["instances"].get_fields() == {}
            continue
        assert output["forgery_map"].shape == size
        values = output["forgery_map"].numpy()
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
        assert output["forgery_map"].dtype == torch.float32
        instances = output["instances"]
        assert instances.image_size == size
        assert instances.pred_masks.dtype == torch.bool
        assert not instances.pred_classes.any()
        assert instances.pred_masks.shape[1:] == size
        assert len(instances.scores) == len(instances.pred_classes) == len(instances.pred_masks)


def _survives_a_round_trip(model):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    missing, unexpected = model.load_state_dict(state)
    assert not missing
    assert not unexpected
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
