"""A Perception Encoder in timm's, Meta's and Loupe's names, at its own size and at others.

That it computes what the published one does: tests/modeling/loupe/test_reference.py.
"""

from __future__ import annotations

import pytest
import timm
import torch

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.perception_encoder import PerceptionEncoder
from ddl_d2.modeling.backbone.perception_encoder_names import timm_names

_SMALL = {"embed_dim": 32, "depth": 1, "num_heads": 2}
NAME = "vit_pe_core_tiny_patch16_384"


def _encoder(**options) -> PerceptionEncoder:
    torch.manual_seed(0)
    return PerceptionEncoder(**({"name": NAME, "input_size": 64} | _SMALL | options))


def _metas(encoder: PerceptionEncoder) -> dict[str, torch.Tensor]:
    """The encoder's weights as Meta's release names them."""
    pairs = (
        ("patch_embed.proj.", "conv1."), ("norm_pre.", "ln_pre."), ("blocks.", "transformer.resblocks."),
        (".norm1.", ".ln_1."), (".norm2.", ".ln_2."), ("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj."),
        ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."), ("attn_pool.proj.", "attn_pool.attn.out_proj."),
        ("attn_pool.norm.", "attn_pool.layernorm."), ("attn_pool.latent", "attn_pool.probe"),
    )  # fmt: skip
    state, named = dict(encoder.body.state_dict()), {}
    named["class_embedding"] = state.pop("cls_token")[0, 0]
    named["positional_embedding"] = state.pop("pos_embed")[0]
    for kind in ("weight", "bias"):
        q, kv = state.pop(f"attn_pool.q.{kind}"), state.pop(f"attn_pool.kv.{kind}")
        named[f"attn_pool.attn.in_proj_{kind}"] = torch.cat([q, kv])
        named[f"ln_post.{kind}"] = state.pop(f"norm.{kind}")
    for key, value in state.items():
        for ours, theirs in pairs:
            key = key.replace(ours, theirs)
        named[key] = value
    return named | {"proj": torch.zeros(32, 32)}


def test_tokens_are_timms_without_the_class_token():
    encoder = _encoder().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens, every = encoder(images), encoder.body.forward_features(images)
    assert torch.equal(tokens.tokens, every[:, 1:])
    assert torch.equal(tokens.class_token, every[:, 0])
    assert torch.equal(tokens.pooled, encoder.body.forward_head(every, pre_logits=True))
    assert (tokens.grid, encoder.channels, encoder.patch) == ((4, 4), 32, 16)


def test_positions_run_on_at_another_size():
    """timm would squeeze the rotary positions of a smaller grid; Meta's start at 1 whatever the grid."""
    rotary = _encoder().body.rope.get_embed()
    same = _encoder(input_size=384).body.rope.get_embed().view(24, 24, -1)[:4, :4].reshape(16, -1)
    assert torch.allclose(rotary, same, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "visual.", "loupe.backbone.", "backbone."])
def test_metas_names(prefix, tmp_path):
    encoder = _encoder()
    weights = {f"{prefix}{key}": value for key, value in _metas(encoder).items()}
    path = tmp_path / "published.pt"
    torch.save(weights | ({"text.ln.weight": torch.zeros(3)} if prefix else {}), path)
    torch.manual_seed(1)
    loaded = PerceptionEncoder(name=NAME, input_size=64, pretrained=str(path), **_SMALL)
    assert all(torch.equal(value, loaded.body.state_dict()[key]) for key, value in encoder.body.state_dict().items())


def test_timms_names(tmp_path):
    encoder = _encoder()
    torch.save(encoder.body.state_dict(), tmp_path / "timm.pth")
    loaded = PerceptionEncoder(name=NAME, input_size=64, pretrained=str(tmp_path / "timm.pth"), **_SMALL)
    assert torch.equal(loaded.body.pos_embed, encoder.body.pos_embed)


def test_strangers_keep_their_names():
    weights = {"conv1.weight": torch.zeros(1)}
    assert timm_names(weights) == weights


def test_weights_for_another_size_are_refused(tmp_path):
    torch.save(_metas(_encoder()), tmp_path / "published.pt")
    with pytest.raises(ConfigError, match=r"1 of another shape \['pos_embed'\] .*MODEL.LOUPE.INPUT_SIZE"):
        PerceptionEncoder(name=NAME, input_size=96, pretrained=str(tmp_path / "published.pt"), **_SMALL)
    with pytest.raises(ConfigError, match=r"INPUT_SIZE is 64, but the weights of '.*' are for 384: set it to 384"):
        _encoder(pretrained="hub")


@pytest.mark.parametrize("name", ["vit_pe_spatial_base_patch16_512", "resnet50", "vit_pe_core_huge_patch14_336"])
def test_other_networks_are_refused(name):
    with pytest.raises(ConfigError, match="a Perception Encoder is one of vit_pe_core_base_patch16_224"):
        _encoder(name=name)


def test_a_size_of_parts_of_patches_is_refused():
    with pytest.raises(ConfigError, match="MODEL.LOUPE.INPUT_SIZE is 70: .* a multiple of 16"):
        _encoder(input_size=70)


def test_the_published_network_has_316_million_parameters():
    """shared/specs/s4_loupe.md, 7.2: 316.1 M without the projection to CLIP's space."""
    with torch.device("meta"):
        body = timm.create_model("vit_pe_core_large_patch14_336", num_classes=0)
    assert round(sum(p.numel() for p in body.parameters()) / 1e6, 1) == 316.1
