"""Heat maps: the formula by hand and against its printed form, and on whole models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Instances

from ddl_d2.errors import ConfigError
from ddl_d2.inference.gradcam import class_activation, grad_cam_plus_plus, predict_with_heat_map
from ddl_d2.inference.overlay import draw_heat_map
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.modeling.test_time.faces import OnFaceCrops
from tests.conftest import CONFIGS, ROOT


def test_by_hand():
    # One channel, A = [1, 3], g = [1, -1]: ΣA = 4, α of the first 1 / (2 + 4 * 1) = 1/6, the second's g is cut to 0.
    activation, gradient = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[1.0, -1.0]]])
    torch.testing.assert_close(grad_cam_plus_plus(activation, gradient), torch.tensor([[1 / 6, 3 / 6]]))
    assert grad_cam_plus_plus(activation, -gradient.abs()).tolist() == [[0.0, 0.0]]


def test_the_printed_formula():
    torch.manual_seed(0)
    activation = torch.rand(7, 3, 5, dtype=torch.float64)  # rectified, as the formula supposes
    gradient = torch.randn(7, 3, 5, dtype=torch.float64)
    total = activation.sum(dim=(1, 2), keepdim=True)
    alpha = gradient**2 / (2 * gradient**2 + total * gradient**3)
    weights = (alpha * gradient.relu()).sum(dim=(1, 2), keepdim=True)
    expected = (weights * activation).sum(0).relu()
    torch.testing.assert_close(grad_cam_plus_plus(activation, gradient), expected, rtol=1e-12, atol=1e-12)
    # Small gradients do not vanish in a guard against division by zero: the map only scales.
    small = grad_cam_plus_plus(activation, 1e-9 * gradient)
    assert small.max() > 0


def test_unrectified_activations_have_no_poles():
    activation, gradient = torch.full((1, 2, 2), -0.5), torch.ones(1, 2, 2)  # ΣA g = -2: the printed α is infinite
    assert torch.isfinite(grad_cam_plus_plus(activation, gradient)).all()


def test_the_coarsest_stage_that_counts():
    features = {"fine": torch.rand(1, 2, 4, 4), "coarse": torch.rand(1, 3, 2, 2), "unused": torch.rand(1, 3, 1, 1)}
    strides = {"fine": 8, "coarse": 16, "unused": 32}
    with torch.no_grad():
        name, cells = class_activation(features, strides, lambda f: f["fine"].mean()[None] + f["coarse"].mean()[None])
    assert name == "coarse"
    assert cells.shape == (2, 2)
    with pytest.raises(ConfigError, match="does not depend"):
        class_activation(features, strides, lambda f: torch.ones(1, requires_grad=True) * 2)


def test_where_the_evidence_is():
    """A network whose score is the brightness of the image looks at the bright corner."""

    class Backbone(torch.nn.Module):
        def forward(self, images):
            return {"res": torch.nn.functional.avg_pool2d(images, 8)}

        def output_shape(self):
            from detectron2.layers import ShapeSpec

            return {"res": ShapeSpec(channels=3, stride=8)}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()

        def image_logits(self, features, image_sizes):
            return features["res"].mean(dim=(1, 2, 3))

        def forward(self, rows):
            features = self.backbone(torch.nn.functional.pad(rows[0]["image"].float(), (0, 8, 0, 4))[None])
            return [{"fake_score": float(self.image_logits(features, None).sigmoid())}]

    image = torch.zeros(3, 60, 40, dtype=torch.uint8)
    image[:, 40:, :16] = 255
    output = predict_with_heat_map(Model().eval(), {"image": image, "height": 120, "width": 80})
    heat = output["heat_map"]
    assert heat.shape == (120, 80)
    assert heat.max() == 1.0
    assert heat[90:108, :24].min() > 0.85  # the last row of cells is half padding
    assert heat[:60].max() == heat[:, 48:].max() == 0.0
    dark = predict_with_heat_map(Model().eval(), {"image": torch.zeros_like(image)})
    assert dark["heat_map"].shape == (60, 40)
    assert dark["heat_map"].max() == 0


class Pooled(torch.nn.Module):
    """A network whose score is the brightness of the image, in cells of 8 pixels."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.AvgPool2d(8)
        self.backbone.forward = lambda images: {"res": torch.nn.functional.avg_pool2d(images, 8)}
        self.backbone.output_shape = lambda: {"res": ShapeSpec(channels=3, stride=8)}

    def image_logits(self, features, image_sizes):
        return features["res"].mean(dim=(1, 2, 3))

    def forward(self, rows):
        outputs = []
        for row in rows:
            logits = self.image_logits(self.backbone(row["image"].float()[None]), None)
            outputs.append({"fake_score": float(logits.sigmoid()), "instances": Instances((16, 16))})
        return outputs


def test_on_face_crops():
    dim, bright = (torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (50, 200))
    crops = [{"image": dim, "window": (0, 0, 16, 16)}, {"image": bright, "window": (12, 8, 28, 24)}]
    row = {"crops": crops, "height": 30, "width": 40}
    model = OnFaceCrops(Pooled().eval())
    output = predict_with_heat_map(model, row)
    heat = output["heat_map"]
    assert heat.shape == (30, 40)
    alone = predict_with_heat_map(model, {"image": bright})["heat_map"]
    assert alone.shape == (16, 16)
    # 4 cells of 3 channels, each with gradient 1/12: w = 4/12 / (2 + 4v/12), and 3 w v is 3v / (6 + v), 150/56 and
    # 600/206. The higher where they overlap, none outside.
    torch.testing.assert_close(heat[8:24, 12:28], torch.ones(16, 16))
    torch.testing.assert_close(heat[:8, :16], torch.full((8, 16), (150 / 56) / (600 / 206)))
    assert heat[0, 0] == heat[15, 11]
    assert heat[24:].max() == heat[:, 28:].max() == heat[:8, 16:].max() == 0
    assert output["fake_score"] == pytest.approx(model([row])[0]["fake_score"], abs=1e-6)
    with pytest.raises(ConfigError, match="Linear has no image_logits"):
        predict_with_heat_map(OnFaceCrops(torch.nn.Linear(1, 1).eval()), row)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_system(tiny_cfg, config):
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.RESNETS.NORM", "BN", config=str(config.relative_to(ROOT / "configs")))
    model = build_model(cfg).eval()
    if not hasattr(model, "image_logits"):
        pytest.skip(f"{cfg.MODEL.META_ARCHITECTURE} offers no heat maps")
    row = {"image": torch.randint(0, 256, (3, 70, 97), dtype=torch.uint8), "height": 41, "width": 55}
    if not cfg.MODEL.DETECTION.ENABLED:
        with pytest.raises(ConfigError, match="no image head"):
            predict_with_heat_map(model, row)
        return
    output = predict_with_heat_map(model, row)
    heat = output["heat_map"]
    assert heat.shape == output["forgery_map"].shape == (41, 55)
    assert torch.isfinite(heat).all()
    assert heat.min() >= 0
    assert heat.max() in (0.0, 1.0)
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        assert output["fake_score"] == pytest.approx(model([row])[0]["fake_score"], abs=1e-6)


def test_a_model_that_only_localizes(tiny_cfg):
    predictor = ForgeryPredictor(build_model(tiny_cfg("MODEL.DETECTION.ENABLED", "False")), _no_resize())
    image = np.zeros((64, 64, 3), np.uint8)
    assert "heat_map" not in predictor(image)
    with pytest.raises(ConfigError, match="no image head"):
        predictor(image, heat_map=True)
    with pytest.raises(ConfigError, match="Linear has no image_logits"):
        predict_with_heat_map(torch.nn.Linear(1, 1), {})


def _no_resize():
    from ddl_d2.data.transforms.resize import ResizeToFit

    return ResizeToFit(64, 64)


def test_drawing():
    image = np.full((60, 90, 3), 100, np.uint8)
    heat = np.zeros((60, 90), np.float32)
    heat[:, 60:] = 1
    figure = draw_heat_map(image, {"fake_score": 0.9, "heat_map": torch.from_numpy(heat)}, title="ü.png")
    assert figure.dtype == np.uint8
    bright = draw_heat_map(image, {"fake_score": 0.9, "heat_map": torch.ones(60, 90)}, title="ü.png")
    assert figure.shape == bright.shape
    assert (figure != bright).any()
    with pytest.raises(ValueError, match="cannot be drawn with a heat map"):
        draw_heat_map(image, {"fake_score": 0.9, "heat_map": torch.ones(90, 60)})
