import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from ddl_d2.errors import ConfigError
from ddl_d2.inference.gradcam import predict_with_heat_map

LITE = "two_cores/lfdl_efficientnet_lite0.yaml"
XCEPTION = "ddl_i/lfdl_xception.yaml"


@pytest.fixture
def build(tiny_cfg):
    def make(*opts, config=LITE):
        torch.manual_seed(0)
        return build_model(tiny_cfg(*opts, config=config))

    return make


def _repeatable(model):
    """Training without what is drawn or remembered: losses, with normalizations and dropout of eval mode."""
    model.eval()
    model.training = True
    return model


def _places(model) -> torch.Tensor:
    """What `_truth` reads the grid from: 96 pixels, stride 16."""
    return torch.zeros(1, model.patch_fusion.projections[-1][0].out_channels, 6, 6)


def test_the_published_network(tiny_cfg, make_row):
    """Its own widths and size."""
    keys = ["INPUT_SIZE", "299", "FUSION_DIM", "512", "PIXEL_DIMS", "[256, 64]", "CLASS_DIMS", "[2048, 4096]"]
    opts = [f"MODEL.LFDL.{word}" if i % 2 == 0 else word for i, word in enumerate(keys)]
    model = build_model(tiny_cfg(*opts, config=XCEPTION)).eval()
    assert model.patch_head.layers[2].weight.shape == (2, 814, 1, 1)
    assert model.patch_head.layers[2].bias is None
    assert model.classifier.earlier.weight.shape == (2048, 1904)
    assert model.classifier.last.weight.shape == (2048, 2048)
    assert model.classifier.joined.weight.shape == (4096, 2048)
    assert model.size == (299, 299)
    assert model.pixel_mean.flatten().tolist() == model.pixel_std.flatten().tolist() == [127.5] * 3
    with torch.no_grad():
        features = model.backbone(torch.randn(1, 3, 299, 299))
        logits, places = model._patch_logits(features)
    assert logits.shape == (1, 19, 19)
    assert places.shape == (1, 512, 19, 19)


def test_the_classifier_may_read_fused_patches_as_the_paper_says(tiny_cfg, build, make_row):
    """Of Xception 814 channels, as the localizer's, instead of 1904 of stages side by side."""
    on = ["MODEL.LFDL.CLASS_MPFF", "True"]
    published = build_model(tiny_cfg(*on, config=XCEPTION))
    assert published.classifier.earlier.weight.shape == (16, 814)
    model = build(*on).train()
    sum(model([make_row(0), make_row(1, fake=False)]).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.no_grad():
        features = model.encode(model.batch([make_row(0)])[0])
        noise = [features[f"noise{stage}"] for stage in range(6)]
        fused = model.class_fusion(model.class_fusion.project(noise), noise[-1])
        expected = model.classifier([fused], features["noise6"])
        torch.testing.assert_close(model._class_logits(features), expected)


def test_losses_and_their_weights(build, make_row):
    rows = [make_row(0), make_row(1, fake=False)]
    model = _repeatable(build())
    one = model(rows)
    assert set(one) == {"loss_cls", "loss_patch", "loss_pixel"}
    model.class_weight, model.patch_weight, model.pixel_weight = 2.0, 3.0, 5.0
    weighted = model(rows)
    for name, factor in {"loss_cls": 2, "loss_patch": 3, "loss_pixel": 5}.items():
        assert weighted[name].item() == pytest.approx(factor * one[name].item(), rel=1e-5)


def test_losses_of_a_network_that_knows_nothing(build, make_row):
    model = build().train()
    for layer in (model.classifier.classify, model.patch_head.layers[2], model.pixel_head.layers[2]):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(model.classifier.classify.bias)
    losses = model([make_row(0), make_row(1, fake=False)])
    for loss in losses.values():  # probability 1/2 everywhere
        assert loss.item() == pytest.approx(math.log(2), abs=1e-5)


def test_a_cell_is_forged_by_one_pixel_and_a_pixel_by_its_share(build):
    model = build()
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[31, 16] = True  # the last row of the second row of cells, the first column of the second
    half = torch.zeros(192, 192, dtype=torch.bool)
    half[:, :96] = True  # as 96 × 96: 7/8 of column 47, and 1/8 of column 48 (weights 1/8, 3/8, 3/8, 1/8 of four)
    rows = [{"forgery_mask": mask}, {"forgery_mask": half}, {"forgery_mask": torch.zeros(50, 70, dtype=torch.bool)}]
    truth = model._truth(rows, torch.tensor([True, True, False]), _places(model))
    assert truth.cells[0].nonzero().tolist() == [[1, 1]]
    assert torch.equal(truth.pixels[0], mask)
    assert truth.cells[1].all(dim=0).tolist() == [True] * 4 + [False] * 2  # 48 / 16 = 3, and the touched one
    assert truth.pixels[1].all(dim=0).nonzero().flatten().tolist() == list(range(48))
    assert not truth.cells[2].any()
    assert not truth.pixels[2].any()
    assert truth.known.tolist() == [True] * 3


def test_a_right_map_costs_nothing(build, make_row):
    model = build().train()
    rows = [make_row(0, size=(96, 96)), make_row(1, fake=False, size=(96, 96))]
    truth = model._truth(rows, torch.tensor([True, False]), _places(model))
    model._patch_logits = lambda features: ((truth.cells.float() * 2 - 1) * 50, _places(model))
    model._enlarged = lambda logits: (truth.pixels.float() * 2 - 1) * 50
    losses = model(rows)
    assert losses["loss_patch"] < 1e-6
    assert losses["loss_pixel"] < 1e-6


def test_images_of_unknown_mask_teach_the_class_only(build, make_row):
    model = _repeatable(build())
    known, unknown = make_row(0), make_row(1) | {"localization_valid": False}
    alone, both = model([known]), model([known, unknown])
    for name in ("loss_patch", "loss_pixel"):
        assert both[name].item() == pytest.approx(alone[name].item(), rel=1e-4)
    assert both["loss_cls"].item() != pytest.approx(alone["loss_cls"].item(), rel=1e-4)
    losses = model([unknown])
    assert losses["loss_patch"] == losses["loss_pixel"] == 0
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_pseudo_labels_teach_images_of_unknown_mask(build, make_row):
    rows = [make_row(0, fake=False), make_row(1) | {"localization_valid": False}]
    model = _repeatable(build("MODEL.LFDL.PSEUDO_LABELS.ENABLED", "True"))
    places = torch.zeros(2, 8, 6, 6)
    places[0, 0] = 1  # real: along the first channel
    places[1, 0] = 1
    places[1, :, 1:4, 2:4] = torch.eye(8)[1][
        :, None, None
    ]  # the fake's middle (cells 2, 3), and a row more: the second
    truth = model._truth(rows, torch.tensor([False, True]), places)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:4, 2:4] = True
    assert truth.known.tolist() == [True, True]
    assert not truth.cells[0].any()
    assert torch.equal(truth.cells[1], expected)
    assert torch.equal(truth.pixels[1], expected.repeat_interleave(16, 0).repeat_interleave(16, 1))
    # The nose decides: where the fake looks like the real image, the anchors are one, and no place is nearer to it.
    rows[1]["nose_box"] = torch.tensor([80.0, 50, 95, 60])
    assert not model._truth(rows, torch.tensor([False, True]), places).cells.any()
    sum(model(rows).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_masks_that_are_known_stay_as_they_are(build, make_row):
    rows = [make_row(0, fake=False), make_row(1), make_row(2) | {"localization_valid": False}]
    model = build("MODEL.LFDL.PSEUDO_LABELS.ENABLED", "True")
    places = torch.randn(3, 8, 6, 6)
    truth = model._truth(rows, torch.tensor([False, True, True]), places)
    model.pseudo_labels = False
    without = model._truth(rows, torch.tensor([False, True, True]), places)
    assert torch.equal(truth.cells[:2], without.cells[:2])
    assert torch.equal(truth.pixels[:2], without.pixels[:2])
    assert truth.known.tolist() == [True, True, True]
    assert without.known.tolist() == [True, True, False]


def test_pseudo_labels_wait_for_their_step(build, make_row):
    model = build("MODEL.LFDL.PSEUDO_LABELS.ENABLED", "True", "MODEL.LFDL.PSEUDO_LABELS.WARMUP_ITERS", "2")
    rows = [make_row(0, fake=False), make_row(1) | {"localization_valid": False}]
    places, is_fake = torch.randn(2, 8, 6, 6), torch.tensor([False, True])
    known = []
    with EventStorage(0) as storage:
        for _ in range(4):
            known.append(model._truth(rows, is_fake, places).known.tolist())
            storage.step()
    assert known == [[True, False]] * 2 + [[True, True]] * 2
    with EventStorage(5):  # a run that was resumed
        assert model._truth(rows, is_fake, places).known.all()


@pytest.mark.parametrize(("map_head", "grid"), [("pixel", "_pixel_logits"), ("patch", "_patch_logits")])
def test_outputs_are_the_class_and_the_map(build, make_row, map_head, grid):
    model = build("MODEL.LFDL.MAP", map_head).eval()
    logits = torch.full((1, 6, 6), -3.0)
    logits[0, :, 3:] = 3.0
    setattr(model, grid, (lambda features: (logits, None)) if map_head == "patch" else (lambda features: logits))
    with torch.no_grad():
        model.classifier.classify.weight.zero_()
        model.classifier.classify.bias.copy_(torch.tensor([0.0, 1.0]))
        (output,) = model([make_row(0, size=(33, 65)) | {"height": 50, "width": 91}])
    assert output["fake_score"] == pytest.approx(1 / (1 + math.exp(-1)))
    probabilities = F.interpolate(logits[None], (96, 96), mode="bilinear").sigmoid()
    expected = F.interpolate(probabilities, (50, 91), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(output["forgery_map"], expected)
    assert torch.equal(output["instances"].pred_masks[0], expected > 0.5)


def test_outputs_do_not_depend_on_the_batch(build, make_row):
    model = build().eval()
    rows = [make_row(0, size=(64, 64)), make_row(1, size=(64, 128)), make_row(2, size=(40, 61))]
    with torch.no_grad():
        model.classifier.classify.weight.mul_(20)  # random weights alone would hide a difference
        together = model(rows)
        for row, output in zip(rows, together, strict=True):
            (alone,) = model([row])
            assert output["fake_score"] == pytest.approx(alone["fake_score"], abs=1e-5)
            assert torch.allclose(output["forgery_map"], alone["forgery_map"], atol=1e-5)


@pytest.mark.parametrize(
    "options", [("CMCE", "sequential"), ("LFGA", "released"), ("MPFF", "released"), ("MAP", "patch")]
)
def test_every_reading_trains_every_parameter(build, make_row, options):
    model = build(f"MODEL.LFDL.{options[0]}", options[1]).train()
    losses = model([make_row(0, fake=False), make_row(1, fake=False)])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_readings_differ(build, make_row):
    rows = [make_row(0), make_row(1, fake=False)]
    paper = _repeatable(build())(rows)
    for key, value in (("CMCE", "sequential"), ("MPFF", "released"), ("SRM_SCALE", "127.5")):
        other = _repeatable(build(f"MODEL.LFDL.{key}", value))(rows)
        assert any(other[name].item() != pytest.approx(paper[name].item(), rel=1e-6) for name in paper), key


def test_bfloat16_is_near_fp32(build, make_row):
    model = _repeatable(build())
    rows = [make_row(0), make_row(1, fake=False)]
    exact = model(rows)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(rows)
    for name, loss in exact.items():
        assert rough[name].dtype == torch.float32
        assert rough[name].item() == pytest.approx(loss.item(), abs=0.05)
    model.eval()
    with torch.no_grad():
        exact_out = model(rows)
        with torch.autocast("cpu", torch.bfloat16):
            rough_out = model(rows)
    assert rough_out[0]["fake_score"] == pytest.approx(exact_out[0]["fake_score"], abs=0.02)
    assert rough_out[0]["forgery_map"].dtype == torch.float32


def test_a_heat_map_is_refused(build, make_row):
    with pytest.raises(ConfigError, match="LFDL has no image_logits"):
        predict_with_heat_map(build().eval(), make_row(0))


def test_wrong_keys_are_named(build):
    with pytest.raises(ConfigError, match="MODEL.LFDL.MAP is 'best': it must be pixel or patch"):
        build("MODEL.LFDL.MAP", "best")
    with pytest.raises(ConfigError, match="MODEL.DETECTION.ENABLED"):
        build("MODEL.DETECTION.ENABLED", "False")
    with pytest.raises(ConfigError, match="MODEL.TIMM.NAME 'resnet18'"):
        build("MODEL.TIMM.NAME", "resnet18")
