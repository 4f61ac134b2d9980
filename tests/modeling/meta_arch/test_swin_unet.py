import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.preprocessing import normalized_batch, padded_truth
from ddl_d2.modeling.swin_unet.decoder import SwinUNetDecoder

LITE = "two_cores/swin_unet_efficientnet_lite0.yaml"
SWIN = "ff/swin_unet_swin_tiny.yaml"


@pytest.fixture
def build(tiny_cfg):
    def make(*opts, config=LITE):
        torch.manual_seed(0)
        return build_model(tiny_cfg(*opts, config=config))

    return make


def _shapes(channels):
    strides = (4, 8, 16, 32)
    return {
        f"res{i + 2}": ShapeSpec(channels=c, stride=s) for i, (c, s) in enumerate(zip(channels, strides, strict=True))
    }


def _decoder(channels=(96, 192, 384, 768), **options):
    settings = {"embed_dim": 96, "depths": [2, 2, 2], "num_heads": [12, 6, 3], "window_size": 7} | options
    return SwinUNetDecoder(input_shape=_shapes(channels), **settings)


def test_decoder_has_the_papers_shapes():
    decoder = _decoder()
    first, *_, last = decoder.stages
    assert first.expand.expand.weight.shape == (16 * 96, 8 * 96)  # at H/32; rearranged to H/16 with 4C
    assert first.join.weight.shape == (4 * 96, 8 * 96)  # F3 and the expanded map, 4C each
    assert last.join.weight.shape == (96, 192)
    assert decoder.to_pixels.expand.weight.shape == (16 * 96, 96)
    assert [block.shift_size for block in first.blocks] == [(0, 0), (3, 3)]


@pytest.mark.parametrize("channels", [(96, 192, 384, 768), (24, 40, 112, 320)])
@pytest.mark.parametrize("size", [(64, 96), (224, 224)])
def test_decoder_takes_any_encoder_and_size(channels, size):
    decoder = _decoder(channels, embed_dim=12, depths=[1, 0, 2]).eval()
    features = {
        name: torch.randn(2, shape.channels, size[0] // shape.stride, size[1] // shape.stride)
        for name, shape in _shapes(channels).items()
    }
    with torch.no_grad():
        assert decoder(features).shape == (2, *size)


def test_decoder_refuses_what_cannot_work():
    with pytest.raises(ConfigError, match="DECODER_HEADS"):
        _decoder(num_heads=[12, 6, 5])
    with pytest.raises(ConfigError, match="one each"):
        _decoder(depths=[2, 2])
    shapes = _shapes((8, 8, 8, 8))
    del shapes["res3"]
    with pytest.raises(ConfigError, match="IN_FEATURES"):
        SwinUNetDecoder(input_shape=shapes, embed_dim=12, depths=[1] * 3, num_heads=[1] * 3, window_size=7)


@pytest.mark.parametrize("config", [LITE, SWIN, "ff/swin_unet_vit_small.yaml"])
@pytest.mark.parametrize("size", [(224, 224), (200, 312), (33, 65)])
def test_any_size(build, make_row, config, size):
    model = build(config=config).eval()
    with torch.no_grad():
        (output,) = model([make_row(0, size=size)])
    assert output["forgery_map"].shape == size
    assert 0 <= output["fake_score"] <= 1


@pytest.mark.parametrize("config", [LITE, SWIN, "ff/swin_unet_vit_small.yaml"])
def test_outputs_do_not_depend_on_the_batch(build, make_row, config):
    model = build(config=config).eval()
    rows = [make_row(0, size=(64, 64)), make_row(1, size=(64, 128)), make_row(2, size=(40, 61))]
    with torch.no_grad():
        model.classifier.weight.mul_(20)  # random weights alone would hide a difference
        together = model(rows)
        for row, output in zip(rows, together, strict=True):
            (alone,) = model([row])
            assert output["fake_score"] == pytest.approx(alone["fake_score"], abs=1e-5)
            assert output["forgery_map"].shape == row["image"].shape[1:]
            assert torch.allclose(output["forgery_map"], alone["forgery_map"], atol=1e-5)


def test_the_class_ignores_padding_exactly(build):
    model = build().eval()
    features = {name: torch.randn(1, shape.channels, 4, 6) for name, shape in model.backbone.output_shape().items()}
    sizes = [(40, 64)]
    model.class_features = {"res5": 32}
    model.classifier = torch.nn.Linear(320, 2)
    before = model._class_logits(features, sizes)
    features["res5"][:, :, 2:] = 1e6  # beyond ceil(40 / 32) = 2 rows
    features["res5"][:, :, :, 2:] = -1e6
    assert torch.equal(model._class_logits(features, sizes), before)
    assert torch.allclose(before, model.classifier(features["res5"][:, :, :2, :2].mean((2, 3))), atol=1e-5)


def test_the_logit_of_fake_gives_the_score(build, make_row):
    model = build().eval()
    row = make_row(0)
    with torch.no_grad():
        score = model([row])[0]["fake_score"]
        images = normalized_batch([row], model.pixel_mean, model.pixel_std, model.size_divisibility)
        logits = model.image_logits(model.backbone(images.tensor), images.image_sizes)
    assert logits.shape == (1,)
    assert logits.sigmoid().item() == pytest.approx(score, abs=1e-5)


def test_losses_are_the_papers_three_with_their_weights(build, make_row):
    rows = [make_row(0), make_row(1, fake=False)]
    model = build().train()
    losses = model(rows)
    assert set(losses) == {"loss_cls", "loss_map", "loss_diversity", "loss_coarse_map"}
    model.eval()  # so that BatchNorm gives the same twice
    model.training = True
    one = model(rows)
    model.class_weight, model.map_weight, model.diversity_weight = 2.0, 3.0, 5.0
    weighted = model(rows)
    for name, factor in {"loss_cls": 2, "loss_map": 3, "loss_diversity": 5, "loss_coarse_map": 5}.items():
        assert weighted[name].item() == pytest.approx(factor * one[name].item(), rel=1e-4)


def test_losses_of_a_network_that_knows_nothing(build, make_row):
    model = build().train()
    for layer in (model.classifier, model.decoder.predict, model.coarse_map):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    losses = model([make_row(0), make_row(1, fake=False)])
    for name in ("loss_cls", "loss_map", "loss_coarse_map"):  # probability 1/2 everywhere
        assert losses[name].item() == pytest.approx(math.log(2), abs=1e-5)


def test_the_map_is_taught_where_the_image_is(build, make_row):
    """A map that is right on the image costs nothing, whatever it says of the padding."""
    model = build().train()
    row = make_row(0, size=(40, 50))
    logits = torch.full((1, 64, 64), 50.0)
    logits[0, :40, :50] = (row["forgery_mask"].float() * 2 - 1) * 50
    model.decoder.forward = lambda features: logits
    assert model([row])["loss_map"] < 1e-6


def test_a_soft_mask_is_the_truth_where_there_is_one(build, make_row):
    model = build().train()
    row = make_row(0, size=(32, 64))
    row["soft_mask"] = torch.full((32, 64), 0.25)
    row["soft_mask"][:, 32:] = 0
    images = type("Images", (), {"tensor": torch.zeros(1, 3, 64, 64), "image_sizes": [(32, 64)]})
    truth = padded_truth([row], images)
    assert torch.equal(truth.maps[0, :32], row["soft_mask"])
    assert not truth.maps[0, 32:].any()
    assert truth.valid[0].sum() == 32 * 64
    # The best a map can do against a probability of 1/4 is to say 1/4: its entropy.
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    logits = torch.where(row["soft_mask"] > 0, math.log(1 / 3), -50.0)[None]
    model.decoder.forward = lambda features: logits
    assert model([row])["loss_map"].item() == pytest.approx(entropy / 2, rel=1e-5)


def test_real_images_are_authentic_everywhere(build, make_row):
    model = build().train()
    row = make_row(0, fake=False)
    model.decoder.forward = lambda features: torch.full((1, 64, 96), -50.0)
    assert model([row])["loss_map"] < 1e-6


def test_images_of_unknown_mask_teach_the_class_only(build, make_row):
    model = build().train()
    known, unknown = make_row(0), make_row(1)
    unknown["localization_valid"] = False
    model.eval()
    model.training = True
    alone, both = model([known]), model([known, unknown])
    for name in ("loss_map", "loss_diversity", "loss_coarse_map"):
        assert both[name].item() == pytest.approx(alone[name].item(), rel=1e-4)
    assert both["loss_cls"].item() != pytest.approx(alone["loss_cls"].item(), rel=1e-4)
    losses = model([unknown])
    assert losses["loss_map"] == losses["loss_diversity"] == losses["loss_coarse_map"] == 0
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("diversity", "names"),
    [
        ("features", {"loss_cls", "loss_map", "loss_diversity", "loss_coarse_map"}),
        ("printed", {"loss_cls", "loss_map", "loss_diversity"}),
        ("none", {"loss_cls", "loss_map"}),
    ],
)
def test_readings_of_the_diversity_loss(build, make_row, diversity, names):
    model = build("MODEL.SWIN_UNET.DIVERSITY", diversity).train()
    losses = model([make_row(0, size=(96, 96)), make_row(1, size=(64, 65))])
    assert set(losses) == names
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_wrong_keys_are_named(build):
    with pytest.raises(ConfigError, match="MODEL.SWIN_UNET.DIVERSITY"):
        build("MODEL.SWIN_UNET.DIVERSITY", "some")
    with pytest.raises(ConfigError, match="MODEL.DETECTION.ENABLED"):
        build("MODEL.DETECTION.ENABLED", "False")


def test_bfloat16_is_near_fp32(build, make_row):
    model = build(config=SWIN).train()
    rows = [make_row(0), make_row(1, fake=False)]
    model.eval()
    model.training = True
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


def test_outputs_are_the_class_and_the_map(build, make_row):
    model = build().eval()
    row = make_row(0, size=(33, 65)) | {"height": 50, "width": 91}
    logits = torch.full((1, 64, 96), -3.0)
    logits[0, :33, 30:65] = 3.0
    model.decoder.forward = lambda features: logits
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
        (output,) = model([row])
    assert output["fake_score"] == pytest.approx(1 / (1 + math.exp(-1)))
    expected = F.interpolate(logits.sigmoid()[:, None, :33, :65], size=(50, 91), mode="bilinear")[0, 0]
    assert torch.allclose(output["forgery_map"], expected, atol=1e-6)
    assert torch.equal(output["instances"].pred_masks[0], output["forgery_map"] > 0.5)
    assert output["instances"].scores[0].item() == pytest.approx(1 / (1 + math.exp(-3)), abs=0.02)
