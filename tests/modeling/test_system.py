"""What the base class does for a system that says only what is its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_model
from torch import nn

from ddl_d2.layers.linear import Linear
from ddl_d2.modeling.preprocessing import fake_labels, known_maps, stretched_batch, stretched_maps
from ddl_d2.modeling.system import ForgerySystem, SystemOptions
from tests.contract.test_every_system import check_system

SIZE = (64, 64)


@META_ARCH_REGISTRY.register()
class SmallSystem(ForgerySystem):
    """A class and a map of 2 × 2 cells from the coarsest feature: all that a new system has to write."""

    @configurable
    def __init__(self, *, backbone, options):
        super().__init__(backbone=backbone, options=options)
        self.head = nn.Linear(backbone.output_shape()["res5"].channels, 2)
        self.use_fast_layers()

    @classmethod
    def from_config(cls, cfg):
        return {"backbone": build_backbone(cfg), "options": SystemOptions.from_config(cfg)}

    def _logits(self, rows):
        features = self.encode(stretched_batch(rows, SIZE, self.pixel_mean, self.pixel_std))
        fake, forged = self.head(features["res5"].permute(0, 2, 3, 1)).float().unbind(-1)
        return fake.mean((1, 2)), F.interpolate(forged[:, None], SIZE, mode="bilinear")[:, 0]

    def losses(self, rows):
        fake, forged = self._logits(rows)
        labels = fake_labels(rows, self.device).float()
        by_pixel = F.binary_cross_entropy_with_logits(forged, stretched_maps(rows, SIZE, self.device), reduction="none")
        known = known_maps(rows, self.device)
        return {
            "loss_det": F.binary_cross_entropy_with_logits(fake, labels),
            "loss_map": (by_pixel.mean((1, 2)) * known).mean(),
        }

    def predictions(self, rows):
        fake, forged = self._logits(rows)
        return [
            self.map_prediction(row, forged[b].sigmoid(), SIZE, float(fake[b].sigmoid())) for b, row in enumerate(rows)
        ]


class Recorder(nn.Module):
    """A backbone that notes in which type a product was computed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
        self.dtypes: list[torch.dtype] = []

    def forward(self, images):
        product = torch.einsum("oc,bchw->bohw", self.weight, images)
        self.dtypes.append(product.dtype)
        return {"res2": product}


class Bare(ForgerySystem):
    """No head: for what the base class does alone."""

    def losses(self, rows):
        return {}

    def predictions(self, rows):
        assert not torch.is_grad_enabled()
        return [{} for _ in rows]


def bare(**options):
    return Bare(backbone=Recorder(), options=SystemOptions(pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, **options))


@pytest.fixture
def small(tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg("MODEL.META_ARCHITECTURE", "SmallSystem"))


def test_a_new_system_keeps_the_contract(small, make_row):
    check_system(small, make_row)


def test_options_come_from_their_keys(tiny_cfg):
    cfg = tiny_cfg(
        "MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]",
        "MODEL.PIXEL_STD", "[4.0, 5.0, 6.0]",
        "TEST.MAP_THRESHOLD", "0.25",
        "INPUT.INSTANCES", "connected_components",
        "TEST.DETECTIONS_PER_IMAGE", "7",
        "TEST.IMAGE_SCORE", "mean",
        "TEST.FP32_STRIDE", "0",
    )  # fmt: skip
    assert SystemOptions.from_config(cfg) == SystemOptions(
        pixel_mean=[1.0, 2.0, 3.0],
        pixel_std=[4.0, 5.0, 6.0],
        map_threshold=0.25,
        instance_mode="connected_components",
        max_instances=7,
        image_score="mean",
        fp32_backbone=False,
    )


def test_the_config_has_the_pixel_statistics_and_not_the_weights(small):
    assert small.pixel_mean.shape == small.pixel_std.shape == (3, 1, 1)
    assert not [key for key in small.state_dict() if key.startswith("pixel")]
    assert small.to("meta").device.type == "meta"


def test_layers_are_fast(small):
    assert type(small.head) is Linear
    convolution = next(m for m in small.backbone.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[1] > 1)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_predicting_needs_no_gradients():
    system = bare().eval()
    assert system([{}, {}]) == [{}, {}]
    assert system.train()([{}]) == {}


@pytest.mark.parametrize(
    ("training", "keep", "dtype", "expected"),
    [
        (False, True, torch.bfloat16, torch.float32),
        (False, False, torch.bfloat16, torch.bfloat16),
        (True, True, torch.bfloat16, torch.bfloat16),  # training is left alone
        (False, True, torch.float16, torch.float16),
        (False, True, None, torch.float32),
    ],
)
def test_where_the_backbone_computes_in_fp32(training, keep, dtype, expected):
    system = bare(fp32_backbone=keep).train(training)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        system.encode(torch.rand(1, 3, 4, 4))
        assert torch.is_autocast_enabled("cpu") == (dtype is not None)
    assert system.backbone.dtypes == [expected]


def test_autocast_is_back_after_an_error():
    system = bare().eval()
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            system.encode(torch.rand(1, 5, 4, 4))
        assert torch.is_autocast_enabled("cpu")


def test_a_score_is_the_maps_unless_it_is_given():
    system = bare(image_score="mean", map_threshold=0.6)
    row = {"height": 6, "width": 10}
    probabilities = torch.full((4, 8), 0.75)  # padded beyond 3 × 5
    output = system.map_prediction(row, probabilities, (3, 5))
    assert output["fake_score"] == pytest.approx(0.75)
    assert output["forgery_map"].shape == (6, 10)
    assert output["instances"].pred_masks.all()
    assert system.map_prediction(row, probabilities, (3, 5), 0.25)["fake_score"] == 0.25
    assert not len(bare(map_threshold=0.75).map_prediction(row, probabilities, (3, 5))["instances"])


def test_an_unfinished_system_is_refused():
    class Half(ForgerySystem):
        def losses(self, rows):
            return {}

    with pytest.raises(TypeError, match="predictions"):
        Half(backbone=Recorder(), options=SystemOptions(pixel_mean=[0.0], pixel_std=[1.0]))
