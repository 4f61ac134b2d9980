import builtins
import math
import re

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone import mix_transformer
from ddl_d2.modeling.backbone.mix_transformer import FEATURES, MixTransformer
from ddl_d2.modeling.backbone.mix_transformer_names import transformers_names

pytest.importorskip("transformers")


def _encoder(**options) -> MixTransformer:
    torch.manual_seed(0)
    return MixTransformer(**({"name": "mit_b0", "out_features": list(FEATURES)} | options))


def test_shapes():
    encoder = _encoder().eval()
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, 64, 96))
    for i, (name, channels) in enumerate(zip(FEATURES, (32, 64, 160, 256), strict=True)):
        stride = 4 * 2**i
        assert (encoder.output_shape()[name].stride, encoder.output_shape()[name].channels) == (stride, channels)
        assert features[name].shape == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(("name", "parameters"), [("mit_b0", 3.3), ("mit_b1", 13.2), ("mit_b3", 44.1)])
def test_sizes_are_the_papers(name, parameters):
    """Millions of parameters: SegFormer's table 1 rounds the encoders to 3.4, 13.1 and 44.0."""
    with torch.device("meta"):
        encoder = _encoder(name=name)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(parameters, abs=0.1)


def test_stages_behind_the_last_are_not_built():
    encoder = _encoder(out_features=["res2", "res4"])
    assert len(encoder.body.stages) == 3
    features = encoder(torch.randn(1, 3, 32, 32))
    assert list(features) == ["res2", "res4"]
    sum(f.sum() for f in features.values()).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_initialized_and_normalized_as_released():
    body = _encoder(drop_path_rate=0.2).body
    fc1 = body.stages[3].blocks[0].mlp.fc1
    assert fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    dwconv = body.stages[3].blocks[0].mlp.dwconv.dwconv  # 3 · 3 · 1024 / 1024 groups = 9
    assert dwconv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert {stage.layer_norm.eps for stage in body.stages} == {1e-6}
    assert {block.layernorm_before.eps for stage in body.stages for block in stage.blocks} == {1e-6}
    assert {stage.patch_embeddings.layer_norm.eps for stage in body.stages} == {1e-5}
    assert body.stages[0].blocks[0].attention.sequence_reduction.layer_norm.eps == 1e-5
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in body.stages for block in stage.blocks]
    assert rates == pytest.approx([0.2 * i / 7 for i in range(8)])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("patch_embed1.proj.weight", "stages.0.patch_embeddings.proj.weight"),
        ("patch_embed4.norm.bias", "stages.3.patch_embeddings.layer_norm.bias"),
        ("block3.17.norm1.weight", "stages.2.blocks.17.layernorm_before.weight"),
        ("block1.0.attn.q.bias", "stages.0.blocks.0.attention.q_proj.bias"),
        ("block1.0.attn.sr.weight", "stages.0.blocks.0.attention.sequence_reduction.sequence_reduction.weight"),
        ("block1.0.attn.norm.weight", "stages.0.blocks.0.attention.sequence_reduction.layer_norm.weight"),
        ("block2.1.attn.proj.weight", "stages.1.blocks.1.attention.o_proj.weight"),
        ("block2.1.norm2.bias", "stages.1.blocks.1.layernorm_after.bias"),
        ("block2.1.mlp.dwconv.dwconv.weight", "stages.1.blocks.1.mlp.dwconv.dwconv.weight"),
        ("norm4.weight", "stages.3.layer_norm.weight"),
        ("segformer.encoder.patch_embeddings.2.proj.weight", "stages.2.patch_embeddings.proj.weight"),
        ("segformer.encoder.block.0.1.layer_norm_1.weight", "stages.0.blocks.1.layernorm_before.weight"),
        ("segformer.encoder.block.0.1.attention.self.query.weight", "stages.0.blocks.1.attention.q_proj.weight"),
        ("encoder.block.0.1.attention.self.sr.bias",
         "stages.0.blocks.1.attention.sequence_reduction.sequence_reduction.bias"),
        ("encoder.block.3.1.attention.output.dense.weight", "stages.3.blocks.1.attention.o_proj.weight"),
        ("encoder.block.3.1.mlp.dense1.weight", "stages.3.blocks.1.mlp.fc1.weight"),
        ("encoder.layer_norm.2.weight", "stages.2.layer_norm.weight"),
        ("segformer.stages.2.layer_norm.weight", "stages.2.layer_norm.weight"),
        ("layers.2.0.projection.weight", "stages.2.patch_embeddings.proj.weight"),
        ("layers.2.0.norm.weight", "stages.2.patch_embeddings.layer_norm.weight"),
        ("layers.0.1.2.norm1.weight", "stages.0.blocks.2.layernorm_before.weight"),
        ("layers.0.1.2.attn.attn.out_proj.bias", "stages.0.blocks.2.attention.o_proj.bias"),
        ("layers.0.1.2.attn.sr.weight", "stages.0.blocks.2.attention.sequence_reduction.sequence_reduction.weight"),
        ("layers.0.1.2.attn.norm.bias", "stages.0.blocks.2.attention.sequence_reduction.layer_norm.bias"),
        ("layers.0.1.2.norm2.weight", "stages.0.blocks.2.layernorm_after.weight"),
        ("layers.3.1.0.ffn.layers.0.bias", "stages.3.blocks.0.mlp.fc1.bias"),
        ("layers.3.1.0.ffn.layers.1.weight", "stages.3.blocks.0.mlp.dwconv.dwconv.weight"),
        ("layers.3.1.0.ffn.layers.4.bias", "stages.3.blocks.0.mlp.fc2.bias"),
        ("layers.3.2.weight", "stages.3.layer_norm.weight"),
        ("classifier.weight", "classifier.weight"),
    ],
)  # fmt: skip
def test_names_of_other_releases(theirs, ours):
    value = torch.zeros(1, 1)
    assert transformers_names({theirs: value}) == {ours: value}


def test_keys_and_values_of_the_original_are_parted():
    kv = torch.arange(12.0).view(4, 3)
    parted = transformers_names({"block1.0.attn.kv.weight": kv})
    assert torch.equal(parted["stages.0.blocks.0.attention.k_proj.weight"], kv[:2])
    assert torch.equal(parted["stages.0.blocks.0.attention.v_proj.weight"], kv[2:])


def test_mmsegmentations_attention_is_parted_and_its_convolutions_are_layers():
    qkv = torch.arange(18.0).view(6, 3)
    parted = transformers_names({"layers.0.1.0.attn.attn.in_proj_weight": qkv})
    at = "stages.0.blocks.0.attention."
    assert {key: value.tolist() for key, value in parted.items()} == {
        f"{at}{part}_proj.weight": qkv[2 * i : 2 * i + 2].tolist() for i, part in enumerate("qkv")
    }
    bias = transformers_names({"layers.0.1.0.attn.attn.in_proj_bias": torch.arange(3.0)})
    assert bias[f"{at}k_proj.bias"].tolist() == [1.0]
    (fc1,) = transformers_names({"layers.0.1.0.ffn.layers.0.weight": torch.zeros(4, 2, 1, 1)}).values()
    assert fc1.shape == (4, 2)


def test_nvidias_file_is_downloaded(tmp_path, monkeypatch):
    """nvidia/mit-b0's layout: transformers' earlier names under `segformer.`, beside a classifier."""
    source = _encoder()
    path = tmp_path / "pytorch_model.bin"
    torch.save({f"segformer.{k}": v for k, v in _as_hub(source.body.state_dict()).items()}, path)
    asked = []
    monkeypatch.setattr(mix_transformer, "hf_hub_download", lambda *names: asked.append(names) or str(path))
    torch.manual_seed(1)
    copy = _encoder(pretrained="hub")
    assert asked == [("nvidia/mit-b0", "pytorch_model.bin")]
    own = source.body.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in copy.body.state_dict().items())

    def offline(*names):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(mix_transformer, "hf_hub_download", offline)
    with pytest.raises(ConfigError, match=r"nvidia/mit-b0 cannot be downloaded \(no network\); give a local file"):
        _encoder(pretrained="hub")


def _as_hub(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Today's names of transformers -> those of the files on its hub."""
    renamed = {"classifier.weight": torch.zeros(2, 2)}
    for key, value in state.items():
        stage, rest = re.fullmatch(r"stages\.(\d)\.(.*)", key).groups()
        for new, old in (("patch_embeddings.", f"patch_embeddings.{stage}."), ("blocks.", f"block.{stage}."),
                         ("layernorm_before", "layer_norm_1"), ("layernorm_after", "layer_norm_2"),
                         ("attention.o_proj", "attention.output.dense"), ("q_proj", "self.query"),
                         ("k_proj", "self.key"), ("v_proj", "self.value"),
                         ("sequence_reduction.sequence_reduction", "self.sr"),
                         ("sequence_reduction.layer_norm", "self.layer_norm"),
                         ("fc1", "dense1"), ("fc2", "dense2")):  # fmt: skip
            rest = rest.replace(new, old)
        if rest.startswith("layer_norm."):
            rest = rest.replace("layer_norm.", f"layer_norm.{stage}.")
        renamed[f"encoder.{rest}"] = value
    return renamed


def _as_original(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Today's names of transformers -> the original release's."""
    original = {}
    for key, value in state.items():
        key = re.sub(r"^stages\.(\d)\.(\w+)", lambda m: f"{m[2]}{int(m[1]) + 1}", key)
        for new, old in (("patch_embeddings", "patch_embed"), ("blocks", "block"), ("attention.", "attn."),
                         ("sequence_reduction.sequence_reduction", "sr"), ("sequence_reduction.layer_norm", "norm"),
                         ("o_proj", "proj"), ("q_proj", "q"), ("layernorm_before", "norm1"),
                         ("layernorm_after", "norm2"), ("layer_norm", "norm")):  # fmt: skip
            key = key.replace(new, old)
        original[key] = value
    for key in [key for key in original if "k_proj" in key]:
        both = original.pop(key), original.pop(key.replace("k_proj", "v_proj"))
        original[key.replace("k_proj", "kv")] = torch.cat(both)
    return original


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    from safetensors.torch import save_file

    source = _encoder()
    state = _as_original(source.body.state_dict()) | {"head.weight": torch.zeros(2, 2)}
    path = tmp_path / f"mit{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    torch.manual_seed(1)
    copy = MixTransformer(name="mit_b0", pretrained=str(path), out_features=["res3"])
    own = source.body.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in copy.body.state_dict().items())


def test_errors_name_the_key(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"MODEL.MESORCH.GLOBAL.NAME is 'mit_b9'.*mit_b5"):
        _encoder(name="mit_b9")
    for source in ("choose", "pypi"):
        with pytest.raises(ConfigError, match=f"MODEL.MESORCH.GLOBAL.PRETRAINED is '{source}'"):
            _encoder(pretrained=source)
    torch.save(_as_original(_encoder().body.state_dict()), tmp_path / "b0.pth")
    with pytest.raises(ConfigError, match=r"does not fit mit_b1: 0 parameters missing .* of another shape"):
        _encoder(name="mit_b1", pretrained=str(tmp_path / "b0.pth"))
    imported = builtins.__import__

    def without_transformers(name, *args, **kwargs):
        if name == "transformers":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_transformers)
    with pytest.raises(ConfigError, match=r"pip install 'ddl_d2\[mesorch\]'"):
        _encoder()
