"""Semantic segmentors with an image head: what S1 compares itself with in its Table 1.

HRNet-w18, UperNet with Swin-T, SegFormer-B5, SAM without prompts and IML-ViT are this with an encoder and a head each;
docs/model_zoo.md says how each reads the paper.

Shapes: `B` images, `C` channels, `K` classes, `H, W` pixels of the padded batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone, build_sem_seg_head
from torch import Tensor, nn

from ddl_d2.errors import ConfigError, InputError
from ddl_d2.modeling.detection import DetectsByImageHead
from ddl_d2.modeling.heads import ImageHead, ImageSizes
from ddl_d2.modeling.losses import edge_bce, map_bce, mean_of_known
from ddl_d2.modeling.postprocessing import Size
from ddl_d2.modeling.preprocessing import map_weight, padded_truth
from ddl_d2.modeling.segmentor.uper_head import AuxiliaryHead
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import count_per_part
from ddl_d2.utils.transfer import on_device

_STRIDE = 32


@META_ARCH_REGISTRY.register()
class ForgerySegmentor(DetectsByImageHead, ForgerySystem):
    """Localizer by a semantic head, and detector by an image head if there is one; else a map gives an image's score.

    Losses: `loss_det` (binary cross-entropy real / fake); `loss_map` (the same of pixels, which for two classes is
    their softmax cross-entropy), and where there is a weight `loss_aux` (that of the auxiliary map) and `loss_edge`
    (that of pixels near an edge of what is forged). Padding and images whose forged pixels are not known
    (`localization_valid` False) have no part in the last three.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        auxiliary_head: AuxiliaryHead | None,
        image_head: ImageHead | None,
        detection_weight: float,
        localization_weight: float,
        auxiliary_weight: float,
        edge_weight: float,
        edge_width: int,
        real_map_weight: float,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: the encoder.
            sem_seg_head: takes the encoder's features {name: B×C×h×w} and gives logits B×K×h×w of some stride: of
                "forged" (K = 1), or of "authentic" and "forged" (K = 2).
            auxiliary_head: as `sem_seg_head`, in training only.
            image_head: None: the system only localizes, and an image's score is its map's.
            detection_weight: of `loss_det`.
            localization_weight: of the other losses.
            auxiliary_weight: of `loss_aux`, besides.
            edge_weight: of `loss_edge`, besides; 0: none.
            edge_width: see `losses.edge_bar`.
            real_map_weight: of real images in all losses but `loss_det`, relative to fakes; at 0 the map says where an
                image is forged *if* it is.
            options: what every system takes.

        Raises:
            ConfigError: an even `edge_width`.
        """
        super().__init__(backbone=backbone, options=options)
        if edge_width < 1 or edge_width % 2 == 0:
            raise ConfigError(f"MODEL.SEGMENTOR.EDGE_WIDTH is {edge_width}: it must be an odd number of pixels")
        self.sem_seg_head = sem_seg_head
        self.auxiliary_head = auxiliary_head
        self.image_head = image_head
        self.detection_weight, self.localization_weight = detection_weight, localization_weight
        self.auxiliary_weight, self.edge_weight, self.edge_width = auxiliary_weight, edge_weight, edge_width
        self.real_map_weight = real_map_weight
        self.square = backbone.padding_constraints.get("square_size", 0)
        self.size_divisibility = self.square or max(backbone.size_divisibility, _STRIDE)
        self.use_fast_layers(sem_seg_head, auxiliary_head)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.SEGMENTOR, SEM_SEG_HEAD, DETECTION and LOCALIZATION."""
        detect, localize, segmentor = cfg.MODEL.DETECTION, cfg.MODEL.LOCALIZATION, cfg.MODEL.SEGMENTOR
        if not localize.ENABLED:
            raise ConfigError("ForgerySegmentor always localizes: leave MODEL.LOCALIZATION.ENABLED True")
        head, auxiliary = cfg.MODEL.SEM_SEG_HEAD, segmentor.AUXILIARY
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        auxiliary_head = image_head = None
        if auxiliary.IN_FEATURE:
            auxiliary_head = AuxiliaryHead(
                input_shape=shapes,
                in_feature=auxiliary.IN_FEATURE,
                num_classes=head.NUM_CLASSES,
                channels=auxiliary.CHANNELS,
                norm=head.NORM,
                dropout_rate=segmentor.DROPOUT,
            )
        if detect.ENABLED:
            image_head = ImageHead(in_features=detect.IN_FEATURES, input_shape=shapes)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, shapes),
            "auxiliary_head": auxiliary_head,
            "image_head": image_head,
            "detection_weight": detect.LOSS_WEIGHT,
            "localization_weight": localize.LOSS_WEIGHT,
            "auxiliary_weight": auxiliary.LOSS_WEIGHT,
            "edge_weight": segmentor.EDGE_WEIGHT,
            "edge_width": segmentor.EDGE_WIDTH,
            "real_map_weight": segmentor.REAL_MAP_WEIGHT,
            "options": SystemOptions.from_config(cfg),
        }

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses from `image`, `is_fake`, and `soft_mask` or else `forgery_mask`."""
        self._check_square(batched_inputs)
        images, features = self.encode_rows(batched_inputs)
        truth = padded_truth(batched_inputs, images)
        maps = _forged(self.sem_seg_head(features), truth.maps)
        by_image = {"loss_map": map_bce(maps, truth.maps, truth.valid)}
        if self.auxiliary_head is not None:
            coarse = _forged(self.auxiliary_head(features), truth.maps)
            by_image["loss_aux"] = self.auxiliary_weight * map_bce(coarse, truth.maps, truth.valid)
        if self.edge_weight:
            by_image["loss_edge"] = self.edge_weight * edge_bce(maps, truth.maps, truth.valid, self.edge_width)
        weight = partial(map_weight, real_weight=self.real_map_weight)
        weights = on_device([weight(row) for row in batched_inputs], self.device)
        count = count_per_part(batched_inputs, weight)
        losses = {
            name: self.localization_weight * mean_of_known(loss, weights, count) for name, loss in by_image.items()
        }
        if self.image_head is not None:
            logits = self.image_head(features, images.image_sizes)
            losses["loss_det"] = self.detection_loss(logits, batched_inputs)
        return losses

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Predict the map, and the score by the image head if there is one.

        Windows, attention to all tokens and global pooling see padding, so the images have to need the same.
        """
        features = self.encode(images)
        forged = _forged(self.sem_seg_head(features), images).sigmoid()
        return Probabilities(None if self.image_head is None else self.image_head(features, sizes).sigmoid(), forged)

    @property
    def fixed_size(self) -> Size | None:
        """The square that images are padded to, if there is one."""
        return (self.square, self.square) if self.square else None

    def batch(self, rows: list[dict[str, Any]]) -> tuple[Tensor, list[Size]]:
        """Make one normalized batch; raises InputError for an image larger than the square that it is padded to."""
        self._check_square(rows)
        return super().batch(rows)

    def _check_square(self, rows: list[dict[str, Any]]) -> None:
        for row in rows if self.square else ():
            if max(row["image"].shape[-2:]) > self.square:
                height, width = row["image"].shape[-2:]
                raise InputError(
                    f"{row.get('image_id', row.get('file_name', 'an image'))}: {width} × {height} pixels are more than "
                    f"MODEL.PLAIN_VIT.SQUARE_PAD {self.square}: set TEST.TILE.SIZE {self.square}, or "
                    "INPUT.MAX_SIZE_TEST (in training INPUT.CROP)"
                )


def _forged(logits: Tensor, like: Tensor) -> Tensor:
    """Return the logit of "forged", fp32 B×H×W at the size of `like`, of class logits B×K×h×w.

    Softmax over two classes is the sigmoid of their difference.
    """
    full = F.interpolate(logits.float(), like.shape[-2:], mode="bilinear", align_corners=False)
    return full[:, 0] if full.shape[1] == 1 else full[:, 1] - full[:, 0]
