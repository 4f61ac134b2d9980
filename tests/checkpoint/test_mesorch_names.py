import re

import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.checkpoint.mesorch_names import from_published_mesorch
from ddl_d2.errors import CheckpointError

pytest.importorskip("transformers")

P_MAPS = ["local_res2", "local_res4", "global_res3", "global_res4", "global_res5"]
ALL_MAPS = [f"{side}_res{i}" for side in ("local", "global") for i in range(2, 6)]


def _renamed(key: str, *, num_maps: int = 8) -> list[str]:
    """What becomes of one key of a checkpoint."""
    marks = ["segformer.patch_embed1.proj.weight", *(f"inverse.{i}.weight" for i in range(num_maps))]
    value = torch.zeros(2)
    others = {mark: torch.ones(1) for mark in marks if mark != key}
    return [name for name, v in from_published_mesorch(others | {key: value}).items() if not v.any()]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("convnext.stem.0.weight", "backbone.local_encoder.body.stem_0.weight"),
        ("convnext.stem.1.bias", "backbone.local_encoder.body.stem_1.bias"),
        ("convnext.stages.3.downsample.1.weight", "backbone.local_encoder.body.stages_3.downsample.1.weight"),
        ("convnext.stages.2.blocks.8.gamma", "backbone.local_encoder.body.stages_2.blocks.8.gamma"),
        ("segformer.patch_embed1.norm.bias", "backbone.global_encoder.body.stages.0.patch_embeddings.layer_norm.bias"),
        ("segformer.block4.2.mlp.fc2.bias", "backbone.global_encoder.body.stages.3.blocks.2.mlp.fc2.bias"),
        ("segformer.norm1.weight", "backbone.global_encoder.body.stages.0.layer_norm.weight"),
        ("upsample.upsamplec2.weight", "heads.local_res3.upsample.0.weight"),
        ("upsample.upsamplec4.2.bias", "heads.local_res5.upsample.2.bias"),
        ("upsample.upsamples3.1.weight", "heads.global_res4.upsample.1.weight"),
        ("inverse.3.bias", "heads.local_res5.to_map.bias"),
        ("inverse.4.weight", "heads.global_res2.to_map.weight"),
        ("gate.conv1.weight", "gate.stem.weight"),
        ("gate.invert.0.bias", "gate.block.0.bias"),
        ("gate.invert.3.weight", "gate.block.3.weight"),
        ("gate.conv2.bias", "gate.to_weights.bias"),
    ],
)
def test_names(theirs, ours):
    assert _renamed(theirs) == [ours]


def test_what_has_no_place_is_left_out_and_keys_and_values_are_parted():
    assert _renamed("convnext.head.fc.weight") == []
    attention = "backbone.global_encoder.body.stages.0.blocks.0.attention"
    assert _renamed("segformer.block1.0.attn.kv.bias") == [f"{attention}.k_proj.bias", f"{attention}.v_proj.bias"]


@pytest.mark.parametrize(("index", "name"), enumerate(P_MAPS))
def test_maps_of_mesorch_p(index, name):
    assert _renamed(f"inverse.{index}.weight", num_maps=5) == [f"heads.{name}.to_map.weight"]


def test_others_stay_as_they_are():
    other = {"inverse.0.weight": torch.zeros(1), "backbone.x": torch.zeros(1)}
    assert from_published_mesorch(other) is other


def _as_published(state: dict[str, torch.Tensor], maps: list[str]) -> dict[str, torch.Tensor]:
    """Our names -> the published ones, step by step the other way round."""
    published = {}
    steps = [
        (r"^backbone\.local_encoder\.body\.(stem|stages)_", r"convnext.\1."),
        (r"^gate\.stem", "gate.conv1"),
        (r"^gate\.block", "gate.invert"),
        (r"^gate\.to_weights", "gate.conv2"),
        (r"^heads\.local_res3\.upsample\.0", "upsample.upsamplec2"),
        (r"^heads\.global_res3\.upsample\.0", "upsample.upsamples2"),
        (r"^heads\.local_res4\.upsample", "upsample.upsamplec3"),
        (r"^heads\.global_res4\.upsample", "upsample.upsamples3"),
        (r"^heads\.local_res5\.upsample", "upsample.upsamplec4"),
        (r"^heads\.global_res5\.upsample", "upsample.upsamples4"),
        *((rf"^heads\.{name}\.to_map", f"inverse.{i}") for i, name in enumerate(maps)),
        (r"^backbone\.global_encoder\.body\.stages\.(\d)", r"segformer.\1"),
        *((rf"^segformer\.{i}\.patch_embeddings\.layer_norm", f"segformer.patch_embed{i + 1}.norm") for i in range(4)),
        *((rf"^segformer\.{i}\.patch_embeddings", f"segformer.patch_embed{i + 1}") for i in range(4)),
        *((rf"^segformer\.{i}\.blocks", f"segformer.block{i + 1}") for i in range(4)),
        *((rf"^segformer\.{i}\.layer_norm", f"segformer.norm{i + 1}") for i in range(4)),
        (r"\.sequence_reduction\.sequence_reduction", ".sr"),
        (r"\.sequence_reduction\.layer_norm", ".norm"),
        (r"\.layernorm_before", ".norm1"),
        (r"\.layernorm_after", ".norm2"),
        (r"\.attention\.", ".attn."),
        (r"\.([qkvo])_proj", r".\1"),
        (r"\.attn\.o\.", ".attn.proj."),
    ]  # fmt: skip
    for key, value in state.items():
        for pattern, replacement in steps:
            key = re.sub(pattern, replacement, key)
        published[key] = value
    for key in [key for key in published if ".attn.k." in key]:
        both = published.pop(key), published.pop(key.replace(".k.", ".v."))
        published[key.replace(".k.", ".kv.")] = torch.cat(both)
    return published


@pytest.mark.parametrize(("config", "maps"), [("mitl_mesorch", ALL_MAPS), ("mitl_mesorch_p", P_MAPS)])
def test_a_whole_checkpoint_loads_strictly(tiny_cfg, tmp_path, config, maps):
    torch.manual_seed(0)
    source, target = (build_model(tiny_cfg(config=f"ddl_i/{config}.yaml")) for _ in range(2))
    published = _as_published(source.state_dict(), maps)
    assert not set(published) & set(source.state_dict())
    torch.save({"model": published | {"convnext.head.fc.bias": torch.zeros(1)}}, tmp_path / "published.pth")
    report = load_weights(target, tmp_path / "published.pth")
    assert str(report) == "every parameter fits"
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


def test_a_checkpoint_of_the_other_variant_is_refused(tiny_cfg, tmp_path):
    model = build_model(tiny_cfg(config="ddl_i/mitl_mesorch_p.yaml"))
    torch.save(_as_published(model.state_dict(), P_MAPS), tmp_path / "p.pth")
    with pytest.raises(CheckpointError, match=r"48 missing: backbone.local_encoder.body.stages_3"):
        load_weights(build_model(tiny_cfg(config="ddl_i/mitl_mesorch.yaml")), tmp_path / "p.pth")
