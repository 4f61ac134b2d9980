"""SegFormer's encoder (MiT, "Mix Transformer"; NeurIPS 2021) as a Detectron2 backbone, from Hugging Face transformers.

Shapes: `B` images, `C` channels, `H, W` pixels of the batch.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.io.weights import load_tensors
from ddl_d2.modeling.backbone.mix_transformer_names import transformers_names
from ddl_d2.modeling.backbone.timm_backbone import wanted_features

logger = logging.getLogger(__name__)

FEATURES = ("res2", "res3", "res4", "res5")


class _Size(NamedTuple):
    depths: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]


_NARROW, _WIDE = (32, 64, 160, 256), (64, 128, 320, 512)
MIX_TRANSFORMERS = {
    "mit_b0": _Size((2, 2, 2, 2), _NARROW),
    "mit_b1": _Size((2, 2, 2, 2), _WIDE),
    "mit_b2": _Size((3, 4, 6, 3), _WIDE),
    "mit_b3": _Size((3, 4, 18, 3), _WIDE),
    "mit_b4": _Size((3, 8, 27, 3), _WIDE),
    "mit_b5": _Size((3, 6, 40, 3), _WIDE),
}


class MixTransformer(Backbone):
    """MiT's multi-scale features, each after its stage's LayerNorm."""

    size_divisibility = 32

    def __init__(
        self,
        *,
        name: str,
        pretrained: str = "",
        out_features: list[str],
        drop_path_rate: float = 0.1,
        embedding_epsilon: float = 1e-5,
        config_keys: str = "MODEL.MESORCH.GLOBAL",
    ) -> None:
        """Build the encoder.

        Args:
            name: one of `MIX_TRANSFORMERS`.
            pretrained: "" (random weights, as the release initializes them); "hub", nvidia/mit-b0 ... b5 of Hugging
                Face, which may be used for non-commercial research only; or a local `.safetensors`, `.pth` or `.bin`
                file in the key names of transformers' SegFormer models (of any release), of mmsegmentation or of the
                original release. "choose" refuses to build.
            out_features: which of `res2` ... `res5` (strides 4 ... 32) to return; stages behind the last are not built.
            drop_path_rate: stochastic depth, growing from 0 at the first block to this at the last.
            embedding_epsilon: of the LayerNorms in patch embeddings and sequence reductions: 1e-5 in the original
                release, 1e-6 in mmsegmentation. All others have 1e-6.
            config_keys: the group of config keys that errors name.

        Raises:
            ConfigError: transformers is missing, an unknown name, no weights were chosen, or they do not fit or cannot
                be downloaded.
        """
        super().__init__()
        if name not in MIX_TRANSFORMERS:
            raise ConfigError(f"{config_keys}.NAME is '{name}': of the MiT there are {', '.join(MIX_TRANSFORMERS)}")
        if pretrained in ("choose", "pypi"):
            raise ConfigError(
                f"{config_keys}.PRETRAINED is '{pretrained}': for {name} set it to a local file of weights, to \"hub\" "
                f'(ImageNet weights, {_hub_name(name)}, for non-commercial research only), or to "" for random ones '
                "(also with --resume)"
            )
        stages = 1 + max(FEATURES.index(feature) for feature in out_features)
        self.body = _segformer(MIX_TRANSFORMERS[name], stages, drop_path_rate, config_keys)
        _as_released(self.body, embedding_epsilon)
        if pretrained:
            load_mix_transformer(self.body, name, pretrained, config_keys)
        self._out_features = list(out_features)
        channels = dict(zip(FEATURES, MIX_TRANSFORMERS[name].channels, strict=True))
        self._out_feature_channels = {feature: channels[feature] for feature in out_features}
        self._out_feature_strides = {feature: 4 * 2 ** FEATURES.index(feature) for feature in out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode B×3×H×W, H and W multiples of 32; returns {feature: B×C×H/stride×W/stride}."""
        features = {}
        for feature, stage in zip(FEATURES, self.body.get_submodule("stages").children(), strict=False):
            images = stage(images)
            features[feature] = images
        return {feature: features[feature] for feature in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature."""
        return {
            feature: ShapeSpec(channels=self._out_feature_channels[feature], stride=self._out_feature_strides[feature])
            for feature in self._out_features
        }


def load_mix_transformer(body: nn.Module, name: str, source: str, config_keys: str) -> None:
    """Fill transformers' SegformerModel from a local file, or from Hugging Face with "hub".

    Raises:
        ConfigError: the file does not fit (names what it lacks), or cannot be downloaded.
    """
    path = _from_hub(name, config_keys) if source == "hub" else Path(source)
    weights = transformers_names(load_tensors(path))
    own = body.state_dict()
    missing = [key for key in own if key not in weights]
    misshapen = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if missing or misshapen:
        raise ConfigError(
            f"{config_keys}.PRETRAINED '{source}' does not fit {name}: "
            f"{len(missing)} parameters missing {missing[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    body.load_state_dict({key: weights[key] for key in own})
    logger.info("encoder %s: %d tensors loaded from %s", name, len(own), source)


def _hub_name(name: str) -> str:
    return f"nvidia/{name.replace('_', '-')}"


def _from_hub(name: str, config_keys: str) -> Path:
    """Download NVIDIA's weights file, or find it in the cache."""
    try:
        return Path(hf_hub_download(_hub_name(name), "pytorch_model.bin"))
    except OSError as error:  # of huggingface_hub, those of the network too
        reason = str(error).split("\n")[0][:200]
        raise ConfigError(
            f"{config_keys}.PRETRAINED 'hub': {_hub_name(name)} cannot be downloaded ({reason}); give a local file"
        ) from error


def _segformer(size: _Size, stages: int, drop_path_rate: float, config_keys: str) -> nn.Module:
    try:
        from transformers import SegformerConfig, SegformerModel
    except ImportError as error:
        raise ConfigError(
            f"{config_keys}.NAME names a MiT, which needs transformers: pip install 'ddl_d2[mesorch]' (or name a model "
            "of timm's)"
        ) from error
    return SegformerModel(
        SegformerConfig(
            num_encoder_blocks=stages,
            depths=size.depths[:stages],
            hidden_sizes=size.channels[:stages],
            num_attention_heads=(1, 2, 5, 8)[:stages],
            sr_ratios=(8, 4, 2, 1)[:stages],
            patch_sizes=(7, 3, 3, 3)[:stages],
            strides=(4, 2, 2, 2)[:stages],
            mlp_ratios=(4, 4, 4, 4)[:stages],
            drop_path_rate=drop_path_rate,
        )
    )


def _as_released(body: nn.Module, embedding_epsilon: float) -> None:
    """Set initialization and epsilons to those of the original release, where transformers has its own."""
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            embedding = "patch_embeddings" in name or "sequence_reduction" in name
            module.eps = embedding_epsilon if embedding else 1e-6


@BACKBONE_REGISTRY.register()
def build_mix_transformer_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MixTransformer:
    """Build the `MixTransformer` of MODEL.MIX_TRANSFORMER as mmsegmentation has it, with the features that are read."""
    return MixTransformer(
        name=cfg.MODEL.MIX_TRANSFORMER.NAME,
        pretrained=cfg.MODEL.MIX_TRANSFORMER.PRETRAINED,
        out_features=wanted_features(cfg),
        drop_path_rate=cfg.MODEL.MIX_TRANSFORMER.DROP_PATH_RATE,
        embedding_epsilon=1e-6,
        config_keys="MODEL.MIX_TRANSFORMER",
    )
