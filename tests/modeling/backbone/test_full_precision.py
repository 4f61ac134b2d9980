import copy

import pytest
import torch

from ddl_d2.modeling.backbone.full_precision import keep_in_fp32
from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone

FEATURES = ["res2", "res3", "res4", "res5"]


def _backbone(name: str) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name=name, out_features=FEATURES).eval()


def _types_inside(backbone: TimmBackbone, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The type that each child of the body computes in."""
    seen = {}

    def note(name):
        return lambda module, arguments, output: seen.update({name: output.dtype})

    for name, module in backbone.body.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(note(name))
    with torch.no_grad(), torch.autocast("cpu", dtype):
        backbone(torch.rand(1, 3, 64, 64))
    return seen


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("swin_tiny_patch4_window7_224", ("patch_embed", "layers_0"), ("layers_1", "layers_2", "layers_3")),
        ("tf_efficientnet_lite0", ("conv_stem", "blocks.0", "blocks.1"), ("blocks.2", "blocks.3", "blocks.6")),
        ("resnet18", ("conv1", "layer1"), ("layer2", "layer4")),
    ],
)
def test_up_to_stride_4_in_fp32_and_bfloat16_after(name, early, late):
    backbone = _backbone(name)
    keep_in_fp32(backbone, 4)
    types = _types_inside(backbone, torch.bfloat16)
    for prefixes, dtype in ((early, torch.float32), (late, torch.bfloat16)):
        of_these = [t for layer, t in types.items() if layer.startswith(prefixes)]
        assert of_these, prefixes
        assert set(of_these) == {dtype}


def test_stride_4_is_equal_to_fp32_and_without_autocast_nothing_changes():
    plain = _backbone("tf_efficientnet_lite0")
    careful = copy.deepcopy(plain)
    keep_in_fp32(careful, 4)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain(x)
        assert all(torch.equal(expected[f], careful(x)[f]) for f in FEATURES)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(careful(x)["res2"], expected["res2"])
            assert torch.is_autocast_enabled("cpu")


def test_autocast_is_back_after_an_error():
    backbone = _backbone("resnet18")
    keep_in_fp32(backbone, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            backbone(torch.rand(1, 5, 64, 64))
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("stride", "dtype"), [(0, torch.bfloat16), (32, torch.float32)])
def test_none_and_all(stride, dtype):
    backbone = _backbone("resnet18")
    keep_in_fp32(backbone, stride)
    assert set(_types_inside(backbone, torch.bfloat16).values()) == {dtype}


def test_training_is_left_alone():
    backbone = _backbone("resnet18").train()
    keep_in_fp32(backbone, 32)
    assert set(_types_inside(backbone, torch.bfloat16).values()) == {torch.bfloat16}


def test_an_unknown_backbone_is_kept_whole():
    module = torch.nn.Conv2d(3, 4, 1).eval()
    keep_in_fp32(module, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.rand(1, 3, 4, 4)).dtype == torch.float32
