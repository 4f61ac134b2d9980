"""TEST.AUG: an image seen at several sizes and mirrored."""

import math

import numpy as np
import pytest
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from ddl_d2.data.datasets import load_config
from ddl_d2.data.transforms.build import build_views
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.io.image import read_image
from ddl_d2.modeling.test_time.build import on_views, wrapped_for_testing
from ddl_d2.modeling.test_time.faces import OnFaceCrops
from ddl_d2.modeling.test_time.tiles import OnTiles
from ddl_d2.modeling.test_time.views import OnViews
from ddl_d2.modeling.test_time.windows import OnWindows
from tests.conftest import ROOT, TINY


class _Leftmost(nn.Module):
    """Says how red each column is, brighter to the left of the view it sees; its score is that of the view's corner."""

    def __init__(self, maps: bool = True):
        super().__init__()
        self.maps, self.seen = maps, []
        self.eval()

    def forward(self, rows):
        outputs = []
        for row in rows:
            image, size = row["image"].float() / 255, (row["height"], row["width"])
            self.seen.append(tuple(image.shape[-2:]))
            output = {"fake_score": float(image[0, 0, 0]), "instances": Instances(size)}
            if self.maps:
                slope = torch.linspace(1, 0, size[1]).expand(size)
                red = torch.nn.functional.interpolate(image[None, :1], size, mode="nearest")[0, 0]
                output["forgery_map"] = red * slope
            outputs.append(output)
        return outputs


def _row(size=(4, 6), red=255):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[0] = red
    return {"image": image, "height": size[0], "width": size[1]}


def test_the_mean_of_a_view_and_its_mirror_image_by_hand():
    row = _row()
    row["image"][0, 0, 0] = 51  # the corner: 0.2; mirrored, the corner is the other one: 1
    (output,) = OnViews(_Leftmost())([row])
    assert output["fake_score"] == pytest.approx((0.2 + 1) / 2)
    # Everywhere s and 1 - s average to 0.5, but for the corner: (0.2 · 1 + 0.2 · 0) / 2.
    expected = torch.full((4, 6), 0.5)
    expected[0, 0] = 0.1
    assert torch.allclose(output["forgery_map"], expected)
    assert len(output["instances"]) == 0  # nothing above 0.5


def test_instances_are_the_regions_of_the_mean():
    (output,) = OnViews(_Leftmost(), map_threshold=0.4)([_row()])
    assert len(output["instances"]) == 1
    assert bool(output["instances"].pred_masks.all())
    assert float(output["instances"].scores[0]) == pytest.approx(0.5)


def test_sizes_without_mirroring():
    model = _Leftmost()
    views = [_row(size, red)["image"] for size, red in (((8, 12), 102), ((2, 3), 204))]
    (output,) = OnViews(model, flip=False)([_row() | {"views": views}])
    assert model.seen == [(4, 6), (8, 12), (2, 3)]
    assert output["fake_score"] == pytest.approx((1 + 0.4 + 0.8) / 3)
    assert output["forgery_map"].shape == (4, 6)
    assert torch.allclose(output["forgery_map"][0], torch.linspace(1, 0, 6) * 2.2 / 3)


def test_a_system_that_only_detects():
    (output,) = OnViews(_Leftmost(maps=False))([_row()])
    assert output["fake_score"] == pytest.approx(1)
    assert output["instances"].get_fields() == {}
    assert "forgery_map" not in output


def test_training_goes_straight_to_the_system():
    class _Losses(nn.Module):
        def forward(self, rows):
            return {"loss": len(rows)}

    wrapped = OnViews(_Losses().train())
    assert wrapped([_row(), _row()]) == {"loss": 2}


def test_nesting_faces_views_tiles(tiny_cfg):
    cfg = tiny_cfg("TEST.AUG.ENABLED", "True", "TEST.TILE.SIZE", "64", "INPUT.FACE_CROP.ENABLED", "True")
    wrapped = wrapped_for_testing(cfg, _Leftmost())
    kinds = []
    while isinstance(wrapped, OnWindows):
        kinds.append(type(wrapped))
        wrapped = wrapped.model
    assert kinds == [OnFaceCrops, OnViews, OnTiles]
    model = on_views(cfg, _Leftmost())
    assert on_views(cfg, model) is model


def test_face_crops_bring_their_views():
    model = _Leftmost()
    crop = {"image": _row((4, 6))["image"], "views": [_row((8, 12), 0)["image"]], "window": (1, 2, 7, 6)}
    (output,) = OnFaceCrops(OnViews(model))([{"crops": [crop], "height": 8, "width": 9}])
    assert model.seen == [(4, 6), (4, 6), (8, 12), (8, 12)]
    assert output["fake_score"] == pytest.approx(0.5)
    assert output["forgery_map"].shape == (8, 9)
    assert torch.allclose(output["forgery_map"][2:6, 1:7], torch.full((4, 6), 0.25))


SYSTEMS = [
    "quickstart/mask2former_efficientnet_lite0.yaml",
    "two_cores/swin_unet_efficientnet_lite0.yaml",
    "two_cores/lfdl_efficientnet_lite0.yaml",
    "two_cores/mesorch_efficientnet_lite0.yaml",
    "release/eyes_lite0.yaml",
    "two_cores/segmentor_efficientnet_lite0.yaml",
]


@pytest.mark.parametrize("config", SYSTEMS)
def test_every_system_in_predictor_and_by_hand(tiny_cfg, config, rng):
    cfg = tiny_cfg("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "[96]", "INPUT.FACE_CROP.ENABLED", "False",
                   config=config)  # fmt: skip
    torch.manual_seed(0)
    system = build_model(cfg).eval()
    image = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    resize, views = ResizeToFit(64, 640), build_views(cfg)
    predictor = ForgeryPredictor(wrapped_for_testing(cfg, system), resize, views=views)
    output = predictor(image)
    alone = []
    for augmentation in (resize, *views):
        alone += [ForgeryPredictor(system, augmentation)(one) for one in (image, image[:, ::-1].copy())]
    assert output["fake_score"] == pytest.approx(math.fsum(one["fake_score"] for one in alone) / 4, abs=1e-5)
    maps = [one["forgery_map"].flip(-1) if i % 2 else one["forgery_map"] for i, one in enumerate(alone)]
    # An antialiased resize of the mirrored image is the mirrored resize but for a gray level of rounding.
    assert torch.allclose(output["forgery_map"], torch.stack(maps).mean(0), atol=2e-2)
    assert output["forgery_map"].shape == (70, 90)
    assert float((predictor.predict_batch([image])[0]["forgery_map"] - output["forgery_map"]).abs().max()) < 1e-6


def test_evaluation_and_predictor_say_the_same(tiny_set, tmp_path):
    path = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
    fixed = ["DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", "('ddl_i_valid',)"]
    sizes = ["INPUT.MIN_SIZE_TEST", "64", "TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(48, 96)"]
    cfg = load_config(path, [*TINY, *fixed, *sizes])
    torch.manual_seed(0)
    system = build_model(cfg).eval()
    seen = {}

    class _Remember(DatasetEvaluator):
        def reset(self):
            seen.clear()

        def process(self, inputs, outputs):
            seen.update({row["image_id"]: (row["file_name"], out) for row, out in zip(inputs, outputs, strict=True)})

        def evaluate(self):
            return {}

    ForgeryTrainer.test(cfg, system, [_Remember()])
    resize = ResizeToFit(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    predictor = ForgeryPredictor(wrapped_for_testing(cfg, system), resize, views=build_views(cfg))
    assert len(seen) == 6
    for file, output in seen.values():
        again = predictor(read_image(file, max_pixels=10**6))
        assert again["fake_score"] == output["fake_score"]
        assert torch.equal(again["forgery_map"], output["forgery_map"])


def test_wrong_keys(tiny_cfg):
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.FLIP or MIN_SIZES"):
        tiny_cfg("TEST.AUG.ENABLED", "True", "TEST.AUG.FLIP", "False")
    with pytest.raises(ConfigError, match=r"MIN_SIZES is \[0\]"):
        tiny_cfg("TEST.AUG.MIN_SIZES", "[0]")
    assert build_views(tiny_cfg("TEST.AUG.MIN_SIZES", "[96]")) == []
