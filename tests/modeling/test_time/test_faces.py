"""Predictions of face crops put together: by hand, and around every system."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.errors import ConfigError
from ddl_d2.modeling.postprocessing import forged_instances, map_output
from ddl_d2.modeling.test_time.build import on_face_crops
from ddl_d2.modeling.test_time.faces import OnFaceCrops, face_score, paste_instances
from tests.conftest import CONFIGS, ROOT


class Brightness(nn.Module):
    """Score and map of an image are how bright it is; counts the rows of each call."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls: list[int] = []

    def forward(self, rows):
        if self.training:
            return {"loss": self.weight.sum()}
        self.calls.append(len(rows))
        outputs = []
        for row in rows:
            gray = row["image"].float().mean(0) / 255
            output = map_output(row, gray, (gray.shape[0], gray.shape[1]), threshold=0.5, mode="union", limit=10)
            outputs.append(output | {"fake_score": float(gray.mean())})
        return outputs


def row_of(*crops, height=6, width=8):
    """A row with crops, each (window, brightness in [0, 255]), shown at the size of the window."""
    parts = []
    for (x0, y0, x1, y1), value in crops:
        image = torch.full((3, y1 - y0, x1 - x0), value, dtype=torch.uint8)
        parts.append({"image": image, "window": (x0, y0, x1, y1)})
    return {"crops": parts, "height": height, "width": width, "image_id": "a.png"}


@pytest.mark.parametrize(
    ("scores", "confident", "mean", "highest"),
    [
        ([0.1, 0.3], 0.2, 0.2, 0.3),  # none is called fake: the mean of all
        ([0.1, 0.6, 0.8], 0.7, 0.5, 0.8),  # (0.6 + 0.8) / 2
        ([0.5, 0.2], 0.5, 0.35, 0.5),  # one half is called fake
        ([0.9], 0.9, 0.9, 0.9),
    ],
)
def test_score(scores, confident, mean, highest):
    assert face_score(scores, "confident") == pytest.approx(confident)
    assert face_score(scores, "mean") == pytest.approx(mean)
    assert face_score(scores, "max") == highest


def test_pasting_by_hand():
    maps = [torch.tensor([[0.2, 0.9], [0.4, 0.3]]), torch.tensor([[0.5, 0.1]])]
    row = row_of(((0, 0, 2, 2), 0), ((1, 1, 3, 2), 0), height=3, width=4)
    whole = OnFaceCrops(Brightness()).merge_maps(row, iter(maps))
    # The second begins on the first's last pixel, where 0.5 is more than 0.3.
    expected = torch.tensor([[0.2, 0.9, 0, 0], [0.4, 0.5, 0.1, 0], [0, 0, 0, 0]])
    assert torch.equal(whole, expected)


def test_overlapping_faces_give_the_highest():
    model = OnFaceCrops(Brightness().eval())
    row = row_of(((0, 0, 4, 4), 51), ((2, 2, 6, 6), 204))
    (output,) = model([row])
    forgery_map = output["forgery_map"]
    assert forgery_map.shape == (6, 8)
    expected = torch.zeros(6, 8)
    expected[0:4, 0:4] = 0.2
    expected[2:6, 2:6] = 0.8
    torch.testing.assert_close(forgery_map, expected)
    assert output["fake_score"] == pytest.approx(0.8)  # the only one of 0.5 or more
    assert [face["window"] for face in output["faces"]] == [(0, 0, 4, 4), (2, 2, 6, 6)]
    assert [face["fake_score"] for face in output["faces"]] == pytest.approx([0.2, 0.8])
    (instance,) = output["instances"].pred_masks  # the first crop has none above 0.5
    assert output["instances"].image_size == (6, 8)
    assert torch.equal(instance, expected > 0.5)
    reversed_row = row | {"crops": row["crops"][::-1]}
    assert torch.equal(model([reversed_row])[0]["forgery_map"], forgery_map)
    assert torch.equal(model([row])[0]["forgery_map"], forgery_map)


@pytest.mark.parametrize(("rule", "expected"), [("confident", 0.7), ("mean", 0.5), ("max", 0.8)])
def test_rules_of_the_score(rule, expected):
    model = OnFaceCrops(Brightness().eval(), face_score=rule)
    # 25.5 of 255 is not a whole number: 26, 153 and 204 are 0.102, 0.6 and 0.8.
    row = row_of(((0, 0, 2, 2), 26), ((2, 0, 4, 2), 153), ((4, 0, 6, 2), 204))
    assert model([row])[0]["fake_score"] == pytest.approx(expected, abs=1e-3)


def test_unknown_rule():
    with pytest.raises(ConfigError, match=r"TEST.FACE_SCORE 'median' is not one of confident, mean, max"):
        OnFaceCrops(Brightness(), face_score="median")


@pytest.mark.parametrize(("batch_size", "calls"), [(1, [1, 1, 1, 1, 1]), (2, [1, 2, 1, 1]), (8, [1, 3, 1])])
def test_batches_of_crops_and_of_images(batch_size, calls):
    rows = [
        row_of(((0, 0, 2, 2), 255), ((2, 2, 5, 4), 51), ((5, 0, 8, 1), 0)),
        {"image": torch.full((3, 3, 5), 102, dtype=torch.uint8), "height": 3, "width": 5},
        row_of(((1, 1, 3, 5), 0)),
    ]
    model = OnFaceCrops(Brightness().eval(), batch_size=batch_size)
    first, plain, last = model(rows)
    assert model.model.calls == calls
    assert first["fake_score"] == 1.0
    assert (plain["fake_score"], last["fake_score"]) == (pytest.approx(0.4), 0.0)
    assert "faces" not in plain
    assert plain["forgery_map"].shape == (3, 5)
    assert last["forgery_map"].max() == 0
    assert len(last["instances"]) == 0


def test_rows_without_crops_and_training_go_straight_through():
    inner = Brightness()
    model = OnFaceCrops(inner)
    assert model.training
    assert set(model([{}])) == {"loss"}
    model.eval()
    rows = [{"image": torch.zeros(3, 4, 4, dtype=torch.uint8)} for _ in range(5)]
    assert len(model(rows)) == 5
    assert inner.calls == [5]
    assert not OnFaceCrops(inner).training  # as it was found


def test_the_weights_are_the_systems():
    inner = Brightness()
    model = OnFaceCrops(inner)
    assert list(model.state_dict()) == ["weight"]
    model.load_state_dict({"weight": torch.tensor([3.0])})
    assert inner.weight.item() == 3
    assert [name for name, _ in model.named_parameters()] == ["model.weight"]


def test_instances_of_the_highest_scores():
    def found(scores, size):
        regions = [(torch.ones(size, dtype=torch.bool), torch.tensor(score)) for score in scores]
        return forged_instances(regions, most=len(scores), size=size, device=torch.device("cpu"))

    parts = [found([0.9, 0.3], (2, 2)), found([], (1, 1)), found([0.6, 0.8], (1, 3))]
    windows = [(0, 0, 2, 2), (2, 2, 3, 3), (1, 3, 4, 4)]
    merged = paste_instances(parts, windows, (4, 5), limit=3)
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.6, 0.8]))  # in the order of the windows
    assert merged.pred_masks.shape == (3, 4, 5)
    assert merged.pred_masks.sum(dim=(1, 2)).tolist() == [4, 3, 3]
    assert merged.pred_masks[1, 3].tolist() == [False, True, True, True, False]
    assert merged.pred_classes.tolist() == [0, 0, 0]
    nothing = paste_instances([found([], (1, 1))], [(0, 0, 1, 1)], (4, 5), limit=3)
    assert nothing.pred_masks.shape == (0, 4, 5)
    # A system that only detects predicts instances without any field.
    assert not paste_instances([Instances((1, 1))], [(0, 0, 1, 1)], (4, 5), limit=3).get_fields()


def test_a_system_that_only_detects():
    class Detector(nn.Module):
        def forward(self, rows):
            return [{"fake_score": 0.25, "instances": Instances((row["height"], row["width"]))} for row in rows]

    (output,) = OnFaceCrops(Detector().eval())([row_of(((0, 0, 2, 2), 0))])
    assert output["fake_score"] == 0.25
    assert "forgery_map" not in output


def test_by_config():
    cfg = get_cfg()
    add_ddl_config(cfg)
    model = Brightness()
    assert on_face_crops(cfg, model) is model
    cfg.INPUT.FACE_CROP.ENABLED, cfg.TEST.FACE_SCORE, cfg.TEST.BATCH_SIZE = True, "max", 7
    wrapped = on_face_crops(cfg, model)
    assert (wrapped.face_score, wrapped.batch_size, wrapped.max_instances) == ("max", 7, 100)
    assert on_face_crops(cfg, wrapped) is wrapped
    within = nn.Sequential(wrapped)  # as DistributedDataParallel has it
    assert on_face_crops(cfg, within) is within


# One small network of each system on images.
_OTHERS = ("self_blending", "self_forged")
SMALL = [path for path in CONFIGS if path.parent.name == "two_cores" and not any(name in path.name for name in _OTHERS)]


@pytest.mark.parametrize("config", SMALL, ids=lambda path: path.stem)
def test_a_whole_image_crop_changes_nothing(tiny_cfg, config):
    """Around every system: the same output, bit for bit; and several crops are predictions of that image."""
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.RESNETS.NORM", "BN", config=str(config.relative_to(ROOT / "configs")))
    model = build_model(cfg).eval()
    wrapped = OnFaceCrops(model)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 81), dtype=np.uint8))
    size = {"height": 33, "width": 50}
    with torch.no_grad():
        (plain,) = model([{"image": image, **size}])
        (whole,) = wrapped([{"crops": [{"image": image, "window": (0, 0, 50, 33)}], **size}])
        crops = [{"image": image[:, :, :70], "window": (3, 2, 30, 33)}, {"image": image, "window": (20, 0, 50, 20)}]
        (several,) = wrapped([{"crops": crops, **size}])
    assert whole.pop("faces") == [{"window": (0, 0, 50, 33), "fake_score": plain["fake_score"]}]
    assert set(whole) == set(plain)
    assert whole["fake_score"] == plain["fake_score"]
    assert set(wrapped.state_dict()) == set(model.state_dict())
    if "forgery_map" not in plain:  # a system that only detects
        assert "forgery_map" not in several
        return
    assert torch.equal(whole["forgery_map"], plain["forgery_map"])
    assert whole["instances"].image_size == plain["instances"].image_size
    for name, values in plain["instances"].get_fields().items():
        assert torch.equal(whole["instances"].get(name), values), name
    assert several["forgery_map"].shape == several["instances"].image_size == (33, 50)
    assert several["forgery_map"][:, :3].max() == several["forgery_map"][20:, 30:].max() == 0


def test_crops_as_rows():
    (row,) = OnFaceCrops(Brightness()).windows(row_of(((1, 2, 4, 6), 9)))
    assert set(row) == {"image", "height", "width"}
    assert (row["height"], row["width"]) == (4, 3)
    assert OnFaceCrops(Brightness()).windows({"image": None}) is None
