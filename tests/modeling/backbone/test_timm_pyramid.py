import pytest
import timm
import torch

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.timm_pyramid import TimmPyramid

FEATURES = ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize("size", [(64, 96), (224, 224)])
def test_a_plain_transformer_becomes_a_pyramid(size):
    backbone = TimmPyramid(name="vit_tiny_patch16_224", out_features=FEATURES).eval()
    with torch.no_grad():
        output = backbone(torch.randn(1, 3, *size))
    for feature, stride, channels in zip(FEATURES, (4, 8, 16, 32), (48, 96, 192, 384), strict=True):
        shape = backbone.output_shape()[feature]
        assert (shape.stride, shape.channels) == (stride, channels)
        assert output[feature].shape == (1, channels, size[0] // stride, size[1] // stride)


def test_only_the_asked_levels_exist():
    backbone = TimmPyramid(name="vit_tiny_patch16_224", out_features=["res4"])
    assert list(backbone.levels) == list(backbone.output_shape()) == ["res4"]


def test_weights_from_a_file_in_timms_names(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    backbone = TimmPyramid(name="vit_tiny_patch16_224", pretrained=str(tmp_path / "vit.pth"), out_features=FEATURES)
    own = backbone.state_dict()
    assert torch.equal(
        own["trunk.body.model.blocks.3.attn.qkv.weight"], source.state_dict()["blocks.3.attn.qkv.weight"]
    )


def test_patches_of_another_size_are_refused():
    with pytest.raises(ConfigError, match="strides"):
        TimmPyramid(name="vit_tiny_patch32_224" if timm.is_model("vit_tiny_patch32_224") else "vit_small_patch32_224",
                    out_features=FEATURES)  # fmt: skip
