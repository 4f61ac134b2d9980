"""A plain vision transformer as a hierarchical backbone.

Shapes: `B` images, `C` channels of the transformer, `H, W` pixels of the padded batch.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.patches import PatchExpand, PatchMerge
from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone, wanted_features


class TimmPyramid(Backbone):
    """`res2` ... `res5` from the last tokens of a timm ViT with patches of 16 pixels (ViTDet's simple pyramid).

    Tokens are expanded × 4 and × 2, kept, and merged / 2, to C/4, C/2, C and 2C channels: with ViT-S (C = 384) exactly
    Swin-T's counts.
    """

    size_divisibility = 32

    def __init__(
        self, *, name: str, pretrained: str = "", out_features: list[str], drop_path_rate: float = 0.0
    ) -> None:
        """Build the transformer and the pyramid.

        Args:
            name: see `TimmBackbone`.
            pretrained: see `TimmBackbone`.
            out_features: which of `res2` ... `res5` to return.
            drop_path_rate: see `TimmBackbone`.

        Raises:
            ConfigError: unknown name, or a model without tokens of stride 16.
        """
        super().__init__()
        self.trunk = TimmBackbone(
            name=name, pretrained=pretrained, out_features=["res4"], drop_path_rate=drop_path_rate
        )
        channels = self.trunk.output_shape()["res4"].channels
        if channels % 4:
            raise ConfigError(f"timm model '{name}' has {channels} channels: a pyramid needs a multiple of 4")
        levels = {
            "res2": (4, channels // 4, PatchExpand(in_channels=channels, out_channels=channels // 4, factor=4)),
            "res3": (8, channels // 2, PatchExpand(in_channels=channels, out_channels=channels // 2, factor=2)),
            "res4": (16, channels, nn.LayerNorm(channels)),
            "res5": (32, channels * 2, PatchMerge(in_channels=channels, out_channels=channels * 2)),
        }
        unknown = [feature for feature in out_features if feature not in levels]
        if unknown:
            raise ConfigError(f"a pyramid has {', '.join(levels)}, not {', '.join(unknown)}")
        self.levels = nn.ModuleDict({feature: levels[feature][2] for feature in out_features})
        self._shapes = {
            feature: ShapeSpec(channels=levels[feature][1], stride=levels[feature][0]) for feature in out_features
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode B×3×H×W, H and W multiples of 32; returns {feature: B×C×H/stride×W/stride}."""
        tokens = self.trunk(images)["res4"].permute(0, 2, 3, 1)
        return {feature: level(tokens).permute(0, 3, 1, 2) for feature, level in self.levels.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature."""
        return dict(self._shapes)


@BACKBONE_REGISTRY.register()
def build_timm_pyramid_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmPyramid:
    """Build the `TimmPyramid` of MODEL.TIMM, with the features that the heads read."""
    return TimmPyramid(
        name=cfg.MODEL.TIMM.NAME,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
        out_features=wanted_features(cfg),
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
    )
