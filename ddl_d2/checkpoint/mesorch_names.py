"""Published checkpoints of Mesorch and Mesorch-P under this project's names.

The published modules, in the order of their parameters, and where their tensors go (figures for Mesorch; `s` counts
stages from 1, and stage s is `res{s + 1}` here):

    convnext.stem.{0, 1}           96×6×4×4 without bias, LayerNorm 96   backbone.local_encoder.body.stem_{0, 1}
    convnext.stages.{0..3}         timm's ConvNeXt-T                     backbone.local_encoder.body.stages_{0..3}
    convnext.head                  never used                            left out
    segformer.patch_embed{s}       64×6×7×7 without bias for s = 1       backbone.global_encoder.body.stages.{s - 1}...
    segformer.block{s}, norm{s}    the original release's MiT-B3         (names: `backbone/mix_transformer_names.py`)
    upsample.upsamplec{s}[.i]      4 × 4, 768 -> 384 -> 192 -> 96        heads.local_res{s + 1}.upsample.{i}
    upsample.upsamples{s}[.i]      4 × 4, 512 -> 320 -> 128 -> 64        heads.global_res{s + 1}.upsample.{i}
    inverse.{0..7}                 1×96×1×1 four times, 1×64×1×1 four    heads.{the maps in their order}.to_map
    gate.conv1                     192×9×7×7                             gate.stem
    gate.invert.{0..3}             LayerNorm, 3 × 3, 1 × 1, 1 × 1        gate.block.{0..3}
    gate.conv2                     8×192×7×7                             gate.to_weights

Mesorch-P lacks convnext.stages.3, convnext.head and the gate, and has five of the maps: c1, c3, s2, s3, s4.
"""

from __future__ import annotations

import re

from torch import Tensor

from ddl_d2.modeling.backbone.mix_transformer_names import transformers_names

_ALL_MAPS = [f"{side}_res{stage}" for side in ("local", "global") for stage in (2, 3, 4, 5)]
# By how many maps a checkpoint has.
_MAPS = {8: _ALL_MAPS, 5: ["local_res2", "local_res4", "global_res3", "global_res4", "global_res5"]}
_ENCODER = {"c": "local", "s": "global"}
_GATE = {"conv1": "stem", "invert": "block", "conv2": "to_weights"}


def from_published_mesorch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a published Mesorch or Mesorch-P; any other state dict is returned as it is."""
    maps = _MAPS.get(sum(bool(re.fullmatch(r"inverse\.\d+\.weight", key)) for key in weights))
    if maps is None or "segformer.patch_embed1.proj.weight" not in weights:
        return weights
    whole = {key.removeprefix("segformer."): value for key, value in weights.items() if key.startswith("segformer.")}
    renamed = {f"backbone.global_encoder.body.{key}": value for key, value in transformers_names(whole).items()}
    for key, value in weights.items():
        module, _, rest = key.partition(".")
        if module == "convnext" and not rest.startswith("head."):
            renamed["backbone.local_encoder.body." + re.sub(r"^(stem|stages)\.", r"\1_", rest)] = value
        elif module == "upsample":
            renamed[_upsample_name(rest)] = value
        elif module == "inverse":
            index, _, parameter = rest.partition(".")
            renamed[f"heads.{maps[int(index)]}.to_map.{parameter}"] = value
        elif module == "gate":
            layer, _, parameter = rest.partition(".")
            renamed[f"gate.{_GATE[layer]}.{parameter}"] = value
    return renamed


def _upsample_name(key: str) -> str:
    """Rename a key such as `upsamplec3.1.weight`, the second step of the local encoder's third stage.

    A stage's only step has no number.
    """
    match = re.fullmatch(r"upsample([cs])(\d)\.(?:(\d)\.)?(\w+)", key)
    if match is None:
        return f"upsample.{key}"
    encoder, stage, step, parameter = match.groups()
    return f"heads.{_ENCODER[encoder]}_res{int(stage) + 1}.upsample.{step or 0}.{parameter}"
