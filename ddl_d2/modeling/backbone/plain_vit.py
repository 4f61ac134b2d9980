"""A plain vision transformer with windows, as SAM and IML-ViT have it, from Detectron2's ViTDet.

Sources: "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022); "Segment Anything" (ICCV
2023), whose encoder and neck are this with one scale; IML-ViT (arXiv 2307.14863).

Shapes: `B` images, `C` channels, `H, W` pixels of the padded batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.io.weights import load_tensors
from ddl_d2.modeling.backbone.timm_backbone import wanted_features

logger = logging.getLogger(__name__)

_PATCH = 16
# Relative positions are for images of this side; they and the absolute ones are resized to others.
_FINE_TUNED_SIDE = 1024
# Absolute positions: the side of the images of the first training, and whether the class token has one, too.
POSITIONS = {"mae": (224, True), "sam": (1024, False)}
_CHOOSE = "choose"
# How many times as fine as the tokens each level is; "p6" is pooled from "p5".
_SCALES = {"p2": 4.0, "p3": 2.0, "p4": 1.0, "p5": 0.5}
_POOLED = "p6"


class PlainViT(SimpleFeaturePyramid):
    """The transformer, and on its last tokens the levels that are read: `p2` ... `p6`, of strides 4 ... 64."""

    def __init__(
        self,
        *,
        out_features: Sequence[str],
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        window_size: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        drop_path_rate: float = 0.1,
        positions: str = "mae",
        out_channels: int = 256,
        square_pad: int = 0,
        pretrained: str = "",
    ) -> None:
        """Build the transformer and the levels.

        Args:
            out_features: which of `p2` ... `p6`; ["p4"] is SAM's neck.
            embed_dim: channels of the tokens.
            depth: number of blocks.
            num_heads: of attention.
            window_size: side, in tokens, of the windows that attention sees.
            global_blocks: indexes of the blocks whose attention sees all tokens.
            drop_path_rate: stochastic depth, growing from 0 at the first block to this at the last.
            positions: absolute positions as "mae" has them (14 × 14 and a class token's) or "sam" (64 × 64).
            out_channels: C.
            square_pad: images are padded to a square of this side (0: to multiples of 32).
            pretrained: "" (random weights), or a local file with the transformer's: MAE's, or SAM's (whole). "choose"
                refuses to build.

        Raises:
            ConfigError: an unknown level or kind of positions, levels with a gap, no weights were chosen, or they do
                not fit.
        """
        if pretrained == _CHOOSE:
            raise ConfigError(
                "MODEL.PLAIN_VIT.PRETRAINED is 'choose': set it to a local file of weights (MAE's, for non-commercial "
                'use only; or SAM\'s, with POSITIONS sam) or to "" for random ones, or set MODEL.WEIGHTS to a whole '
                "checkpoint"
            )
        if positions not in POSITIONS:
            raise ConfigError(f"MODEL.PLAIN_VIT.POSITIONS is '{positions}': it must be one of {', '.join(POSITIONS)}")
        side, class_token = POSITIONS[positions]
        with warnings.catch_warnings():
            # Detectron2 imports two layers of timm's from where they were.
            warnings.simplefilter("ignore", FutureWarning)
            vit = ViT(
                img_size=_FINE_TUNED_SIDE,
                patch_size=_PATCH,
                embed_dim=embed_dim,
                depth=depth,
                num_heads=num_heads,
                drop_path_rate=drop_path_rate,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=window_size,
                window_block_indexes=[i for i in range(depth) if i not in global_blocks],
                pretrain_img_size=side,
                pretrain_use_cls_token=class_token,
            )
        if pretrained:
            load_plain_vit(vit, pretrained)
        super().__init__(
            vit,
            "last_feat",
            out_channels=out_channels,
            scale_factors=_scales(out_features),
            top_block=LastLevelMaxPool() if _POOLED in out_features else None,
            norm="LN",
            square_pad=square_pad,
        )

    @property
    def size_divisibility(self) -> int:
        """What height and width of a batch are multiples of."""
        return 32


def _scales(features: Sequence[str]) -> list[float]:
    scales = [scale for name, scale in _SCALES.items() if name in features]
    unknown = set(features) - set(_SCALES) - {_POOLED}
    gap = any(finer != 2 * coarser for finer, coarser in pairwise(scales))
    if unknown or gap or not scales or (_POOLED in features and "p5" not in features):
        raise ConfigError(
            f"a plain ViT gives p2, p3, p4, p5, p6, those in a row, not {', '.join(features) or 'nothing'}: mend "
            "MODEL.SEM_SEG_HEAD.IN_FEATURES and MODEL.DETECTION.IN_FEATURES"
        )
    return scales


def load_plain_vit(vit: ViT, source: str) -> None:
    """Fill the transformer from a local file: MAE's (which has no relative positions; they start at 0), or SAM's.

    Raises:
        ConfigError: a parameter is not found, or has another shape.
    """
    weights = plain_vit_names(load_tensors(Path(source)))
    own = vit.state_dict()
    missing = [key for key in own if key not in weights and ".attn.rel_pos_" not in key]
    misshapen = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if missing or misshapen:
        raise ConfigError(
            f"MODEL.PLAIN_VIT.PRETRAINED '{source}' does not fit: {len(missing)} parameters missing {missing[:3]}, "
            f"{len(misshapen)} of another shape {misshapen[:3]} (MODEL.PLAIN_VIT.POSITIONS?)"
        )
    vit.load_state_dict({key: weights.get(key, value) for key, value in own.items()})
    logger.info("plain ViT: %d tensors loaded from %s", sum(key in weights for key in own), source)


def plain_vit_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename SAM's image encoder, without its neck, to Detectron2's names; MAE's names are the same.

    Strangers keep their names.
    """
    renamed = {}
    for key, value in weights.items():
        name = key.removeprefix("image_encoder.").replace(".mlp.lin", ".mlp.fc")
        renamed[name] = value.flatten(1, 2) if name == "pos_embed" and value.dim() == 4 else value
    return renamed


@BACKBONE_REGISTRY.register()
def build_plain_vit_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PlainViT:
    """Build the `PlainViT` of MODEL.PLAIN_VIT, with the levels that the heads read.

    MODEL.WEIGHTS is a choice of weights, too.
    """
    vit = cfg.MODEL.PLAIN_VIT
    chosen = "" if vit.PRETRAINED == _CHOOSE and cfg.MODEL.WEIGHTS else vit.PRETRAINED
    return PlainViT(
        out_features=wanted_features(cfg),
        embed_dim=vit.EMBED_DIM,
        depth=vit.DEPTH,
        num_heads=vit.NUM_HEADS,
        window_size=vit.WINDOW_SIZE,
        global_blocks=vit.GLOBAL_BLOCKS,
        drop_path_rate=vit.DROP_PATH_RATE,
        positions=vit.POSITIONS,
        out_channels=vit.OUT_CHANNELS,
        square_pad=vit.SQUARE_PAD,
        pretrained=chosen,
    )
