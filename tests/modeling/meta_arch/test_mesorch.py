import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.errors import ConfigError
from ddl_d2.layers.dct import dct, inverse_dct
from ddl_d2.modeling.heads import score_from_map

pytest.importorskip("transformers")

FULL, PRUNED, LITE = "ddl_i/mitl_mesorch.yaml", "ddl_i/mitl_mesorch_p.yaml", "two_cores/mesorch_efficientnet_lite0.yaml"


@pytest.fixture
def build(tiny_cfg):
    def make(*opts, config=FULL):
        torch.manual_seed(0)
        return build_model(tiny_cfg(*opts, config=config))

    return make


@pytest.fixture
def says(monkeypatch):
    """`says(model, logits)`: whatever it sees, the model's map has these logits (B×S×S, or a number)."""

    def force(model, logits):
        def map_logits(images):
            connected = 0 * model.heads["local_res2"].to_map.bias
            return torch.zeros(images.shape[0], *images.shape[-2:]) + logits + connected

        monkeypatch.setattr(model, "map_logits", map_logits)
        return model

    return force


def test_published_sizes(tiny_cfg):
    published = ["MODEL.MESORCH.LOCAL.NAME", "convnext_tiny", "MODEL.MESORCH.GLOBAL.NAME", "mit_b3",
                 "MODEL.MESORCH.GATE_CHANNELS", "192", "MODEL.DEVICE", "meta"]  # fmt: skip
    with torch.device("meta"):
        full, pruned = (build_model(tiny_cfg(*published, config=config)) for config in (FULL, PRUNED))
    # The released network has 85,753,944 parameters, of which 770,536 are a classifier it does not use: a LayerNorm of
    # 768 channels and a layer of 768 · 1000 + 1000 weights.
    assert sum(p.numel() for p in full.parameters()) == 85_753_944 - (2 * 768 + 768 * 1000 + 1000)
    assert sum(p.numel() for p in pruned.parameters()) == 62_235_365
    assert list(full.heads) == [f"{side}_res{i}" for side in ("local", "global") for i in (2, 3, 4, 5)]
    assert list(pruned.heads) == ["local_res2", "local_res4", "global_res3", "global_res4", "global_res5"]
    assert pruned.gate is None
    assert [len(full.heads[name].upsample) for name in full.heads] == [0, 1, 2, 3] * 2
    assert full.gate.to_weights.out_channels == 8


def _slow_logits(model, images):
    """The published way: transforms there and back, every map at stride 4, their weighted sum."""
    height, width = images.shape[-2:]
    kept_high, kept_low = torch.ones(2, height, width)
    kept_high[: int(0.05 * height), : int(0.05 * width)] = 0
    kept_low[-int(0.95 * height) :, -int(0.95 * width) :] = 0
    parts = []
    for kept in (kept_high, kept_low):
        part = inverse_dct(dct(images) * kept)
        low, high = part.flatten(1).amin(1), part.flatten(1).amax(1)
        parts.append((part - low[:, None, None, None]) / (high - low)[:, None, None, None])
    local = model.backbone.local_encoder(torch.cat([images, parts[0]], dim=1))
    whole = model.backbone.global_encoder(torch.cat([images, parts[1]], dim=1))
    maps = []
    for name, head in model.heads.items():
        side, feature = name.split("_")
        maps.append(head((local if side == "local" else whole)[feature])[:, 0])
    maps = torch.stack(maps, dim=1)
    if model.gate is not None:
        maps = maps * model.gate(torch.cat([images, *parts], dim=1))
    return F.interpolate(maps.sum(1)[:, None], (height, width), mode="bilinear", align_corners=True)[:, 0]


@pytest.mark.parametrize("config", [FULL, PRUNED])
def test_equals_the_published_arithmetic(build, config):
    model = build(config=config).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert model.map_logits(images).std() > 1e-3
        torch.testing.assert_close(model.map_logits(images), _slow_logits(model, images), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("config", [FULL, PRUNED, LITE])
@pytest.mark.parametrize("size", [(1, 1), (200, 31), (64, 64)])
def test_any_size(build, make_row, config, size):
    model = build(config=config).eval()
    row = make_row(0, fake=False, size=size)
    with torch.no_grad():
        (output,) = model([row])
        (unsized,) = model([{"image": row["image"]}])
    assert output["forgery_map"].shape == unsized["forgery_map"].shape == size
    assert torch.isfinite(output["forgery_map"]).all()
    assert 0 <= output["fake_score"] <= 1


@pytest.mark.parametrize("value", [0, 124, 255])
def test_constant_images(build, make_row, value):
    row = make_row(0, fake=False, size=(40, 40))
    row["image"][:] = value
    model = build().train()
    loss = model([row, make_row(1)])["loss_map"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        assert math.isfinite(model.eval()([row])[0]["fake_score"])


def test_outputs_do_not_depend_on_the_batch(build, make_row):
    model = build().eval()
    rows = [make_row(0, size=(64, 64)), make_row(1, size=(64, 128)), make_row(2, size=(40, 61))]
    with torch.no_grad():
        for row, output in zip(rows, model(rows), strict=True):
            (alone,) = model([row])
            assert torch.allclose(output["forgery_map"], alone["forgery_map"], atol=1e-5)
            assert output["fake_score"] == pytest.approx(alone["fake_score"], abs=1e-5)


def test_loss_by_hand(build, make_row, says):
    model = says(build().train(), math.log(3))  # probability 3/4
    fake = make_row(0, size=(64, 64))  # a sixteenth is forged
    real = make_row(1, fake=False, size=(64, 64))
    right, wrong = -math.log(0.75), -math.log(0.25)
    assert model([real])["loss_map"].item() == pytest.approx(wrong)
    assert model([fake])["loss_map"].item() == pytest.approx((right + 15 * wrong) / 16)
    assert model([fake, real])["loss_map"].item() == pytest.approx((right + 31 * wrong) / 32)


def test_a_pixel_is_forged_by_half(build, make_row, says):
    model = says(build().train(), 50.0)
    row = make_row(0, size=(64, 64))
    row["soft_mask"] = torch.full((64, 64), 0.5)
    assert model([row])["loss_map"] < 1e-6
    row["soft_mask"] = torch.full((64, 64), 0.49)
    assert model([row])["loss_map"].item() == pytest.approx(50)


def test_images_of_unknown_mask_teach_nothing(build, make_row):
    model = build("MODEL.MESORCH.GLOBAL.DROP_PATH_RATE", "0.0").train()
    known, unknown = make_row(0), make_row(1)
    unknown["localization_valid"] = False
    both, alone = model([known, unknown])["loss_map"], model([known])["loss_map"]
    assert both.item() == pytest.approx(alone.item(), rel=1e-4)
    loss = model([unknown])["loss_map"]
    assert loss == 0
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("config", [FULL, PRUNED, LITE])
def test_every_parameter_is_reached(build, make_row, config):
    opts = ["MODEL.MESORCH.LOCAL.NAME", "tf_efficientnet_lite0"] if config == LITE else []
    model = build(*opts, config=config).train()
    model([make_row(0, fake=False), make_row(1, fake=False)])["loss_map"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("rule", ["mean", "max", "top_pixels"])
def test_outputs_are_the_map(build, make_row, says, rule):
    model = build("TEST.IMAGE_SCORE", rule).eval()
    logits = torch.full((1, 64, 64), -3.0)
    logits[0, :32, 16:48] = 3.0
    says(model, logits)
    row = make_row(0, size=(33, 65)) | {"height": 50, "width": 91}
    (output,) = model([row])
    expected = F.interpolate(logits.sigmoid()[:, None], size=(50, 91), mode="bilinear")[0, 0]
    assert torch.allclose(output["forgery_map"], expected, atol=1e-6)
    assert output["fake_score"] == score_from_map(expected, rule)
    assert torch.equal(output["instances"].pred_masks[0], expected > 0.5)
    assert not output["forgery_map"].requires_grad


def test_the_gate_chooses(build):
    model = build().eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for head in model.heads.values():
            head.to_map.weight.zero_()
        model.heads["global_res4"].to_map.bias.fill_(2.5)
        model.gate.to_weights.weight.zero_()
        model.gate.to_weights.bias.copy_(torch.tensor([0.0] * 6 + [50.0, 0.0]))
        others = sum(head.to_map.bias.item() for name, head in model.heads.items() if name != "global_res4")
        torch.testing.assert_close(model.map_logits(images), torch.full((1, 64, 64), 2.5))
        model.gate = None
        torch.testing.assert_close(model.map_logits(images), torch.full((1, 64, 64), 2.5 + others))


def test_bfloat16_is_near_fp32(build, make_row):
    model = build("TEST.FP32_STRIDE", "32").eval()
    rows = [make_row(0), make_row(1, fake=False)]
    with torch.no_grad():
        exact = model(rows)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(rows)
            model.training = True
            loss = model(rows)["loss_map"]
    assert loss.dtype == torch.float32
    for one, other in zip(exact, rough, strict=True):
        assert other["forgery_map"].dtype == torch.float32
        assert torch.allclose(one["forgery_map"], other["forgery_map"], atol=0.02)


def test_evaluation_reads_no_pretrained_weights(build, tiny_cfg, tmp_path):
    torch.save({"model": build().state_dict()}, tmp_path / "model.pth")
    gone = str(tmp_path / "gone.pth")
    cfg = tiny_cfg("MODEL.WEIGHTS", str(tmp_path / "model.pth"), "MODEL.MESORCH.LOCAL.PRETRAINED", gone,
                   "MODEL.MESORCH.GLOBAL.PRETRAINED", gone, config=FULL)  # fmt: skip
    with pytest.raises(ValueError, match="gone.pth"):
        build_model(cfg)
    assert not build_trained_model(cfg).training


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT_SIZE", "100", "MODEL.MESORCH.INPUT_SIZE is 100"),
        ("FREQUENCY_CUT", "1.5", "MODEL.MESORCH.FREQUENCY_CUT is 1.5"),
        ("LOW_PASS", "round", "MODEL.MESORCH.LOW_PASS is 'round'"),
        ("LOCAL.MAPS", "[]", "MODEL.MESORCH.LOCAL.MAPS"),
        ("GLOBAL.MAPS", "['res2', 'res2']", "MODEL.MESORCH.GLOBAL.MAPS"),
        ("GLOBAL.MAPS", "['res7']", "MODEL.MESORCH.GLOBAL.MAPS"),
        ("GLOBAL.PRETRAINED", "hub", "MODEL.MESORCH.GLOBAL.PRETRAINED"),
    ],
)
def test_wrong_keys_are_named(build, key, value, message):
    with pytest.raises(ConfigError, match=message):
        build(f"MODEL.MESORCH.{key}", value)


def test_there_is_no_image_head(build):
    with pytest.raises(ConfigError, match="MODEL.DETECTION.ENABLED False"):
        build("MODEL.DETECTION.ENABLED", "True")
