"""System S1: a Mask2Former-style query decoder that localizes, and an image head that detects, trained together.

Source: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", arXiv 2112.01527, for the
decoder. Shapes: `B` images, `Q` queries, `K` classes, `C` channels, `H, W` pixels of the padded batch. The forged class
is the last one, `K - 1`.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from torch import Tensor

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.detection import DetectsByImageHead
from ddl_d2.modeling.heads import ImageHead, ImageSizes, score_from_map
from ddl_d2.modeling.mask2former.build import build_criterion
from ddl_d2.modeling.mask2former.criterion import BatchCounts, SetCriterion, Targets
from ddl_d2.modeling.mask2former.head import QueryDecoderHead
from ddl_d2.modeling.mask2former.painting import painted_at_once, query_outputs
from ddl_d2.modeling.postprocessing import original_size
from ddl_d2.modeling.preprocessing import is_known
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import whole_batch
from ddl_d2.utils.transfer import to_device

_NOTHING = "MODEL.DETECTION.ENABLED and MODEL.LOCALIZATION.ENABLED are both False: nothing to train"


@META_ARCH_REGISTRY.register()
class ForgeryMask2Former(DetectsByImageHead, ForgerySystem):
    """Detector and localizer in one; either half can be switched off.

    Losses: `loss_det` (binary cross-entropy real / fake) of the image head, and those of the criterion, each times the
    weight of its half.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: QueryDecoderHead | None,
        image_head: ImageHead | None,
        criterion: SetCriterion | None,
        detection_weight: float,
        localization_weight: float,
        size_divisibility: int,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: Detectron2's.
            sem_seg_head: pixel decoder and query decoder; None: the system only detects.
            image_head: None: the system only localizes, and an image's score is its map's.
            criterion: of the queries; needed for training with a `sem_seg_head`.
            detection_weight: of `loss_det`.
            localization_weight: of the criterion's losses.
            size_divisibility: images are padded to a multiple of it and of the backbone's own.
            options: what every system takes.

        Raises:
            ConfigError: neither head is given.
        """
        super().__init__(backbone=backbone, options=options)
        if sem_seg_head is None and image_head is None:
            raise ConfigError(_NOTHING)
        self.sem_seg_head = sem_seg_head
        self.image_head = image_head
        self.criterion = criterion
        self.detection_weight = detection_weight
        self.localization_weight = localization_weight
        self.size_divisibility = max(size_divisibility, backbone.size_divisibility, 1)
        self.use_fast_layers()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.DETECTION, MODEL.LOCALIZATION and MODEL.MASK_FORMER."""
        detect, localize = cfg.MODEL.DETECTION, cfg.MODEL.LOCALIZATION
        if not (detect.ENABLED or localize.ENABLED):
            raise ConfigError(_NOTHING)
        backbone = build_backbone(cfg)
        head = build_sem_seg_head(cfg, backbone.output_shape()) if localize.ENABLED else None
        image_head = None
        if detect.ENABLED:
            image_head = ImageHead(in_features=detect.IN_FEATURES, input_shape=backbone.output_shape())
        return {
            "backbone": backbone,
            "sem_seg_head": head,
            "image_head": image_head,
            "criterion": build_criterion(cfg) if localize.ENABLED else None,
            "detection_weight": detect.LOSS_WEIGHT,
            "localization_weight": localize.LOSS_WEIGHT,
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
            "options": SystemOptions.from_config(cfg),
        }

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses from `image`, `is_fake` (image head) and `instances` (query decoder)."""
        images, features = self.encode_rows(batched_inputs)
        losses = {}
        if self.image_head is not None:
            logits = self.image_head(features, images.image_sizes)
            losses["loss_det"] = self.detection_loss(logits, batched_inputs)
        if self.sem_seg_head is not None and self.criterion is not None:
            rows, parts = whole_batch(batched_inputs)
            whole = BatchCounts(
                [(len(row["instances"]) if is_known(row) else 0, is_known(row) > 0) for row in rows], parts
            )
            predictions = self.sem_seg_head.predict(features)
            for name, loss in self.criterion(predictions, self._targets(batched_inputs, images), whole).items():
                losses[name] = self.localization_weight * loss
        return losses

    def predictions(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Paint the queries as a map, and show the confident ones as instances."""
        images, features = self.encode_rows(batched_inputs)
        scores = None
        if self.image_head is not None:
            scores = self.image_head(features, images.image_sizes).sigmoid()
        queries = self.sem_seg_head(features) if self.sem_seg_head is not None else None
        with torch.autocast(self.device.type, enabled=False):
            return self._outputs(batched_inputs, images, queries, scores)

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Paint the queries of all images at once, where `predictions` saves memory and shows instances besides.

        Raises:
            ConfigError: the system only detects.
        """
        if self.sem_seg_head is None:
            raise ConfigError("MODEL.LOCALIZATION.ENABLED is False: this model only detects, it has no map to export")
        features = self.encode(images)
        queries, size = self.sem_seg_head(features), (images.shape[-2], images.shape[-1])
        forged, authentic = painted_at_once(queries["pred_masks"], queries["pred_logits"], size)
        scores = None if self.image_head is None else self.image_head(features, sizes).sigmoid()
        return Probabilities(scores, forged, authentic)

    def _targets(self, batched_inputs: list[dict[str, Any]], images: ImageList) -> list[Targets]:
        """Make the targets of a batch; masks and classes of all its images are brought over at once."""
        found: list[Instances] = [row["instances"] for row in batched_inputs]
        counts = [len(one) for one in found]
        masks = torch.zeros(sum(counts), *images.tensor.shape[-2:], dtype=torch.bool)
        for place, one in zip(masks.split(counts), found, strict=True):
            height, width = one.image_size
            place[:, :height, :width] = one.gt_masks.tensor
        classes = to_device(torch.cat([one.gt_classes for one in found]), self.device).split(counts)
        return [
            Targets(
                classes=own_classes,
                masks=own_masks,
                image_id=str(row.get("image_id", row.get("file_name", "?"))),
                supervised=is_known(row) > 0,
            )
            for row, own_classes, own_masks in zip(
                batched_inputs, classes, to_device(masks, self.device).split(counts), strict=True
            )
        ]

    def _outputs(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        queries: dict[str, Tensor] | None,
        scores: Tensor | None,
    ) -> list[dict[str, Any]]:
        padded = (images.tensor.shape[-2], images.tensor.shape[-1])
        outputs = []
        for b, row in enumerate(batched_inputs):
            unpadded, original = images.image_sizes[b], original_size(row)
            output: dict[str, Any] = {"instances": Instances(original)}
            if queries is not None:
                output = query_outputs(
                    queries["pred_masks"][b],
                    queries["pred_logits"][b],
                    padded,
                    unpadded,
                    original,
                    limit=self.options.max_instances,
                    threshold=self.options.map_threshold,
                )
            if scores is not None:
                output["fake_score"] = float(scores[b])
            else:
                output["fake_score"] = score_from_map(output["forgery_map"], self.options.image_score)
            outputs.append(output)
        return outputs
