import pytest
import torch

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.plain_vit import PlainViT

LEVELS = ["p2", "p3", "p4", "p5", "p6"]


def _vit(**options) -> PlainViT:
    torch.manual_seed(0)
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3, "window_size": 3, "global_blocks": [1], "out_channels": 32}
    return PlainViT(**(small | {"out_features": LEVELS} | options))


@pytest.mark.parametrize("levels", [LEVELS, ["p4"], ["p2", "p3"], ["p5", "p6"]])
def test_levels_are_those_that_are_read(levels):
    vit = _vit(out_features=levels)
    features = vit(torch.randn(1, 3, 64, 96))
    assert sorted(features) == sorted(vit.output_shape()) == levels
    for name, feature in features.items():
        stride = 2 ** int(name[1])
        assert (vit.output_shape()[name].stride, vit.output_shape()[name].channels) == (stride, 32)
        assert feature.shape == (1, 32, 64 // stride, -(-96 // stride))
    sum(f.sum() for f in features.values()).backward()
    assert [n for n, p in vit.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("levels", [["p4", "p6"], ["p2", "p4"], ["res4"], []])
def test_levels_that_there_are_not(levels):
    with pytest.raises(ConfigError, match="MODEL.SEM_SEG_HEAD.IN_FEATURES"):
        _vit(out_features=levels)


def test_windows_see_only_themselves():
    """3 × 3 tokens are 48 × 48 pixels: without a global block what changes in one window changes nothing beyond it."""
    vit = _vit(global_blocks=[], out_features=["p4"]).net.eval()
    images = torch.randn(1, 3, 96, 96)
    changed = images.clone()
    changed[:, :, 60:70, 60:70] += 1
    with torch.no_grad():
        before, after = vit(images)["last_feat"], vit(changed)["last_feat"]
    differs = (before != after).any(dim=1)[0]
    assert differs[3:, 3:].all()
    assert not differs[:3].any()
    assert not differs[:, :3].any()


def _as_mae(vit: PlainViT) -> dict[str, torch.Tensor]:
    """MAE's file: no relative positions, and what belongs to the class token and the end of its encoder."""
    state = {key: value for key, value in vit.net.state_dict().items() if "rel_pos" not in key}
    return state | {"cls_token": torch.zeros(1, 1, 48), "norm.weight": torch.ones(48), "norm.bias": torch.zeros(48)}


def _as_sam(vit: PlainViT) -> dict[str, torch.Tensor]:
    state = {}
    for key, value in vit.net.state_dict().items():
        name = key.replace(".mlp.fc", ".mlp.lin")
        state[f"image_encoder.{name}"] = value.view(1, 64, 64, -1) if key == "pos_embed" else value
    return state | {"image_encoder.neck.0.weight": torch.zeros(2), "mask_decoder.iou_token.weight": torch.zeros(2)}


@pytest.mark.parametrize(("positions", "published"), [("mae", _as_mae), ("sam", _as_sam)])
def test_weights_from_a_file(tmp_path, positions, published):
    source = _vit(positions=positions)
    for name, parameter in source.net.named_parameters():
        if "rel_pos" in name and positions == "sam":
            torch.nn.init.normal_(parameter)
    torch.save({"model": published(source)}, tmp_path / "vit.pth")
    torch.manual_seed(1)
    copy = PlainViT(out_features=["p4"], embed_dim=48, depth=2, num_heads=3, window_size=3, global_blocks=[1],
                    positions=positions, pretrained=str(tmp_path / "vit.pth"))  # fmt: skip
    own = source.net.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in copy.net.state_dict().items())


def test_errors_name_the_key(tmp_path):
    with pytest.raises(ConfigError, match="MODEL.PLAIN_VIT.POSITIONS is 'rotary'"):
        _vit(positions="rotary")
    torch.save(_as_mae(_vit()), tmp_path / "mae.pth")
    with pytest.raises(ConfigError, match=r"does not fit: 0 parameters missing .* 1 of another shape \['pos_embed'\]"):
        _vit(positions="sam", pretrained=str(tmp_path / "mae.pth"))
