"""The vision tower of a Perception Encoder (PE-Core) as tokens, by timm.

Source: "Perception Encoder: The best visual embeddings are not at the output of the network" (arXiv 2504.13181).
Shapes: `B` images, `S` their side in pixels, `N` tokens, `C` channels.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from timm.models.eva import Eva
from torch import Tensor

from ddl_d2.errors import ConfigError
from ddl_d2.io.weights import load_tensors
from ddl_d2.modeling.backbone.perception_encoder_names import timm_names
from ddl_d2.modeling.backbone.tokens import TokenBackbone, Tokens

logger = logging.getLogger(__name__)


class PerceptionEncoder(TokenBackbone):
    """Tokens after the last normalization, and the feature that attention pools from them and the class token."""

    def __init__(
        self,
        *,
        name: str,
        input_size: int,
        pretrained: str = "",
        drop_path_rate: float = 0.0,
        **sizes: int,
    ) -> None:
        """Build the network and load its weights.

        Args:
            name: timm's name of a PE-Core.
            input_size: S; rotary positions are counted on from those of the published size, as Meta's code does.
            pretrained: "" (random weights), "hub" (timm downloads), or a local file in Meta's, timm's or Loupe's names.
            drop_path_rate: stochastic depth.
            sizes: what of timm's `Eva` shall differ from the published network (`embed_dim`, `depth`, `num_heads`).

        Raises:
            ConfigError: an unknown name, a size that is no multiple of the patches', or weights that do not fit.
        """
        super().__init__()
        patch = re.fullmatch(r"vit_pe_core_\w+_patch(\d+)_(\d+)(\.\w+)?", name)
        if patch is None or not timm.is_model(name):
            known = ", ".join(timm.list_models("vit_pe_core_*"))
            raise ConfigError(f"MODEL.TIMM.NAME is '{name}': a Perception Encoder is one of {known}")
        self.patch, native = int(patch[1]), int(patch[2])
        if input_size < self.patch or input_size % self.patch:
            raise ConfigError(f"MODEL.LOUPE.INPUT_SIZE is {input_size}: with '{name}', a multiple of {self.patch}")
        if pretrained == "hub" and input_size != native:
            raise ConfigError(
                f"MODEL.LOUPE.INPUT_SIZE is {input_size}, but the weights of '{name}' are for {native}: set it to "
                f'{native}, or MODEL.TIMM.PRETRAINED to ""'
            )
        side = input_size // self.patch
        self.grid = (side, side)
        self.body: Eva = timm.create_model(
            name,
            pretrained=pretrained == "hub",
            num_classes=0,
            img_size=input_size,
            ref_feat_shape=self.grid,
            drop_path_rate=drop_path_rate,
            **sizes,
        )
        self.channels = self.body.embed_dim
        if pretrained and pretrained != "hub":
            load_perception_encoder(self.body, pretrained)

    def forward(self, images: Tensor) -> Tokens:
        """Encode B×3×S×S in [-1, 1]."""
        every = self.body.forward_features(images)
        pooled = self.body.forward_head(every, pre_logits=True)
        return Tokens(tokens=every[:, 1:], pooled=pooled, grid=self.grid, class_token=every[:, 0])


def load_perception_encoder(body: Eva, source: str) -> None:
    """Fill the network from a local file: Meta's whole CLIP, its vision tower, timm's file, or Loupe's.

    Raises:
        ConfigError: a parameter is not found, or has another shape.
    """
    weights = timm_names(load_tensors(Path(source)))
    own = body.state_dict()
    missing = [key for key in own if key not in weights]
    misshapen = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if missing or misshapen:
        raise ConfigError(
            f"MODEL.TIMM.PRETRAINED '{source}' does not fit: {len(missing)} parameters missing {missing[:3]}, "
            f"{len(misshapen)} of another shape {misshapen[:3]} (MODEL.TIMM.NAME, or MODEL.LOUPE.INPUT_SIZE: 336 for "
            "PE-Core-L14-336)"
        )
    body.load_state_dict({key: weights[key] for key in own})
    logger.info("Perception Encoder: %d tensors loaded from %s", len(own), source)


@BACKBONE_REGISTRY.register()
def build_perception_encoder_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PerceptionEncoder:
    """Build the `PerceptionEncoder` of MODEL.TIMM for images of MODEL.LOUPE.INPUT_SIZE."""
    return PerceptionEncoder(
        name=cfg.MODEL.TIMM.NAME,
        input_size=cfg.MODEL.LOUPE.INPUT_SIZE,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
    )
