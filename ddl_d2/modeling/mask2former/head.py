"""The localization head of system S1: pixel decoder and query decoder.

Shapes: `B` images, `Q` queries, `K` classes, `H, W` pixels of the mask features (stride 4).
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from ddl_d2.modeling.mask2former.query_decoder import QueryDecoder, QueryPredictions


@SEM_SEG_HEADS_REGISTRY.register()
class QueryDecoderHead(nn.Module):
    """Pixel decoder and query decoder; MODEL.SEM_SEG_HEAD.NUM_CLASSES is the one place that says how many classes."""

    @configurable
    def __init__(self, *, num_classes: int, pixel_decoder: nn.Module, predictor: nn.Module) -> None:
        """Put the parts together.

        Args:
            num_classes: K.
            pixel_decoder: see `MSDeformAttnPixelDecoder`.
            predictor: see `QueryDecoder`.
        """
        super().__init__()
        self.num_classes = num_classes
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], *, conditional: bool = False
    ) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER.

        Args:
            cfg: the config.
            input_shape: channels and strides of the features.
            conditional: see `MSDeformAttnPixelDecoder`.

        Raises:
            ConfigError: a number of classes that is not possible, or features that the backbone lacks.
        """
        head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        if head.NUM_CLASSES not in (1, 2):
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {head.NUM_CLASSES}: it must be 1 (forged) or 2 (authentic, forged)"
            )
        pixel_decoder = MSDeformAttnPixelDecoder(
            input_shape=input_shape,
            in_features=head.IN_FEATURES,
            deformable_in_features=head.DEFORMABLE_IN_FEATURES,
            conv_dim=head.CONVS_DIM,
            mask_dim=head.MASK_DIM,
            norm=head.NORM,
            num_layers=head.TRANSFORMER_ENC_LAYERS,
            num_heads=head.TRANSFORMER_ENC_NHEADS,
            num_points=head.TRANSFORMER_ENC_POINTS,
            dim_feedforward=head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
            conditional=conditional,
        )
        predictor = QueryDecoder(
            in_channels=head.CONVS_DIM,
            hidden_dim=former.HIDDEN_DIM,
            mask_dim=head.MASK_DIM,
            num_classes=head.NUM_CLASSES,
            num_levels=len(pixel_decoder.deformable_features),
            num_queries=former.NUM_OBJECT_QUERIES,
            num_heads=former.NHEADS,
            dim_feedforward=former.DIM_FEEDFORWARD,
            num_layers=former.DEC_LAYERS,
        )
        return {"num_classes": head.NUM_CLASSES, "pixel_decoder": pixel_decoder, "predictor": predictor}

    def predict(self, features: dict[str, Tensor], condition: Tensor | None = None) -> QueryPredictions:
        """Compute all prediction sets, masks unpainted: what training needs.

        Args:
            features: {name: B×c×h×w}.
            condition: what a conditional pixel decoder is told of each image, B×C.
        """
        mask_features, levels = self.pixel_decoder(features, condition)
        return self.predictor(levels, mask_features)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the last set, painted: `pred_logits` B×Q×(K+1), `pred_masks` B×Q×H×W (logits)."""
        predictions = self.predict(features)
        return {"pred_logits": predictions.logits[-1], "pred_masks": predictions.masks()}
