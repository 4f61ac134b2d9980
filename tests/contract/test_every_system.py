"""What every config promises, whatever system it builds: one test over all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.modeling.meta_arch import BATFD
from ddl_d2.modeling.system import ForgerySystem
from tests.conftest import CONFIGS, ROOT

# SyncBN exists on GPUs only; its parameters are BN's.
_OPTS = ["MODEL.RESNETS.NORM", "BN"]


@pytest.fixture(params=CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def model(request, tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*_OPTS, config=str(request.param.relative_to(ROOT / "configs"))))


def test_system(model, make_row, make_clip_row):
    """One pass over the promises, so that each network is built once."""
    assert all(type(m) is not nn.Linear for m in model.modules())  # `use_fast_layers` was called
    if isinstance(model, BATFD):
        check_clip_system(model, make_clip_row)
        return
    assert isinstance(model, ForgerySystem)
    check_system(model, make_row)


def check_system(model, make_row):
    """Hold a system to the contract that `ddl_d2/modeling/system.py` writes down."""
    _trains(model, make_row)
    _predicts(model, make_row)
    _survives_a_round_trip(model)


def check_clip_system(model, make_clip_row):
    """Hold a system on clips to the contract that `ddl_d2/modeling/meta_arch/batfd.py` writes down."""
    clips = [make_clip_row(0, frames=20), make_clip_row(1, fake=False, frames=33)]
    _learns(model, clips, [make_clip_row(2, fake=False), make_clip_row(3, fake=False, sound=False)])
    _finds_segments(model, [*clips, make_clip_row(4, frames=1), make_clip_row(5, sound=False)])
    _survives_a_round_trip(model)


def _finds_segments(model, rows):
    model.eval()
    known = ("is_fake", "segments", "video_segments", "audio_segments")
    outputs = model([{k: v for k, v in row.items() if k not in known} for row in rows])
    for row, output in zip(rows, outputs, strict=True):
        assert isinstance(output["fake_score"], float)
        assert 0 <= output["fake_score"] <= 1
        confidence, start, end = output["segments"].T
        assert torch.isfinite(output["segments"]).all()
        assert ((confidence >= 0) & (confidence <= 1)).all()
        assert (confidence.diff() <= 0).all()
        assert ((start >= 0) & (start < end) & (end <= row["duration"] + 1e-6)).all()
        assert set(output["frame_scores"]) == ({"video", "audio"} if row["has_audio"] else {"video"})
        for curve in output["frame_scores"].values():
            assert curve.shape == (row["num_frames"],)
            assert ((curve >= 0) & (curve <= 1)).all()


def _trains(model, make_row):
    _learns(
        model,
        [make_row(0, fake=True, size=(65, 97)), make_row(1, fake=False, size=(96, 64))],
        [make_row(2, fake=False), make_row(3, fake=False)],
    )


def _learns(model, batch, real_batch):
    model.train()
    losses = model(batch)
    assert losses
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    # A batch in which nothing is forged: most users' first crash. Every parameter must still be reached (DDP).
    losses = model(real_batch)
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
