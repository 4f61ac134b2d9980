"""System S1: a Mask2Former-style query decoder that localizes, and an image head that detects, trained together.

Shapes: `B` images, `Q` queries, `K` classes, `H, W` pixels (padded batch unless said otherwise). The forged class is
the last one, `K - 1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.linear import use_fast_linear
from ddl_d2.modeling.backbone.full_precision import keep_in_fp32
from ddl_d2.modeling.heads import ImageHead, score_from_map
from ddl_d2.modeling.mask2former.criterion import SetCriterion, Targets
from ddl_d2.modeling.mask2former.matcher import HungarianMatcher
from ddl_d2.modeling.postprocessing import Size, forged_instances, original_size, to_original
from ddl_d2.modeling.preprocessing import normalized_batch

# Scalars of painted masks held at once while queries are summed into a map (fp32: 16 MiB).
_MAX_PAINTED = 4 * 2**20
# Rows of the masks painted at once, at least: two more are painted for their sake.
_MIN_BAND = 4
# A query is shown as an instance from this confidence.
_INSTANCE_CONFIDENCE = 0.5
_NOTHING = "MODEL.DETECTION.ENABLED and MODEL.LOCALIZATION.ENABLED are both False: nothing to train"


@META_ARCH_REGISTRY.register()
class ForgeryMask2Former(nn.Module):
    """Detector and localizer in one; either half can be switched off.

    In training `forward` returns named, weighted losses; in eval mode one dict per image, at its original size:
    `fake_score` float, `forgery_map` float H×W in [0, 1] (absent without localization) and `instances`.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module | None,
        image_head: ImageHead | None,
        criterion: SetCriterion | None,
        detection_weight: float,
        localization_weight: float,
        size_divisibility: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        image_score: str,
        max_instances: int,
        fp32_stride: int = 32,
    ):
        super().__init__()
        if sem_seg_head is None and image_head is None:
            raise ConfigError(_NOTHING)
        # Convolutions are faster on this layout, on CPUs and GPUs alike; values are the same.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.sem_seg_head = sem_seg_head
        self.image_head = image_head
        self.criterion = criterion
        self.detection_weight = detection_weight
        self.localization_weight = localization_weight
        self.size_divisibility = max(size_divisibility, backbone.size_divisibility, 1)
        self.image_score = image_score
        self.max_instances = max_instances
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        use_fast_linear(self)
        keep_in_fp32(self.backbone, fp32_stride)

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
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
            "criterion": _build_criterion(cfg) if localize.ENABLED else None,
            "detection_weight": detect.LOSS_WEIGHT,
            "localization_weight": localize.LOSS_WEIGHT,
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "image_score": cfg.TEST.IMAGE_SCORE,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
            "fp32_stride": cfg.TEST.FP32_STRIDE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def image_logits(self, features: dict[str, Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """Logits of "fake", B, differentiable: from the backbone's {name: B×C×h×w} and the unpadded (height, width) of
        each image. Raises ConfigError if there is no image head.
        """
        if self.image_head is None:
            raise ConfigError("MODEL.DETECTION.ENABLED is False: this model only localizes, it has no image head")
        return self.image_head(features, image_sizes)

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Mapper rows (`image` uint8 3×H×W; in training `is_fake`, `instances`) -> losses, or predictions."""
        images = normalized_batch(batched_inputs, self.pixel_mean, self.pixel_std, self.size_divisibility)
        features = self.backbone(images.tensor)
        if self.training:
            return self._losses(batched_inputs, images, features)
        return self._predict(batched_inputs, images, features)

    def _losses(self, batched_inputs: list[dict], images: ImageList, features: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = {}
        if self.image_head is not None:
            logits = self.image_head(features, images.image_sizes)
            labels = torch.tensor([float(x["is_fake"]) for x in batched_inputs], device=self.device)
            losses["loss_det"] = self.detection_weight * F.binary_cross_entropy_with_logits(logits, labels)
        if self.sem_seg_head is not None and self.criterion is not None:
            targets = [self._target(x, images) for x in batched_inputs]
            for name, loss in self.criterion(self.sem_seg_head.predict(features), targets).items():
                losses[name] = self.localization_weight * loss
        return losses

    def _target(self, row: dict, images: ImageList) -> Targets:
        instances: Instances = row["instances"]
        masks = instances.gt_masks.tensor.to(self.device)
        height, width = images.tensor.shape[-2:]
        return Targets(
            classes=instances.gt_classes.to(self.device),
            masks=F.pad(masks, (0, width - masks.shape[2], 0, height - masks.shape[1])),
            image_id=str(row.get("image_id", row.get("file_name", "?"))),
            supervised=row.get("localization_valid", True),
        )

    @torch.no_grad()
    def _predict(self, batched_inputs: list[dict], images: ImageList, features: dict[str, Tensor]) -> list[dict]:
        scores = None
        if self.image_head is not None:
            scores = self.image_head(features, images.image_sizes).sigmoid()
        queries = self.sem_seg_head(features) if self.sem_seg_head is not None else None
        with torch.autocast(self.device.type, enabled=False):
            return self._outputs(batched_inputs, images, queries, scores)

    def _outputs(
        self,
        batched_inputs: list[dict],
        images: ImageList,
        queries: dict[str, Tensor] | None,
        scores: Tensor | None,
    ) -> list[dict]:
        outputs = []
        for b, row in enumerate(batched_inputs):
            unpadded = images.image_sizes[b]
            original = original_size(row, unpadded)
            output: dict[str, Any] = {"instances": Instances(original)}
            if queries is not None:
                masks, probabilities = queries["pred_masks"][b].float(), queries["pred_logits"][b].float().softmax(-1)
                padded = tuple(images.tensor.shape[-2:])
                forged = probabilities[:, -2]
                output["forgery_map"] = _forgery_map(masks, forged, padded, unpadded, original)
                output["instances"] = _instances(masks, forged, padded, unpadded, original, self.max_instances)
            output["fake_score"] = (
                float(scores[b]) if scores is not None else score_from_map(output["forgery_map"], self.image_score)
            )
            outputs.append(output)
        return outputs


def _forgery_map(masks: Tensor, forged: Tensor, padded: Size, unpadded: Size, original: Size) -> Tensor:
    """Σ_q p_q(forged) σ(mask_q), clipped to 1, at the original size: Q×h×w logits, Q -> H×W.

    The sum is taken at the network's input size (a multiple of the masks') and then resized, before any threshold.
    """
    return to_original(_painted_sum(masks, forged, padded), unpadded, original).clamp_(0, 1)


def _painted_sum(masks: Tensor, weights: Tensor, padded: Size) -> Tensor:
    """Σ_q w_q σ(mask_q resized to `padded`): Q×h×w, Q -> H×W.

    All queries are painted on one band of rows after the other, so that memory does not grow with Q × H × W. They come
    last in memory: resizing is then twice as fast on CPUs, and the sum is one product.
    """
    height, ratio = masks.shape[1], padded[0] // masks.shape[1]
    band = max(_MIN_BAND, _MAX_PAINTED // (ratio * padded[1] * len(masks)))
    total = masks.new_empty(padded)
    for top in range(0, height, band):
        bottom = min(top + band, height)
        # With their neighbors, on which their painted pixels depend; those of the neighbors are dropped.
        first, last = max(top - 1, 0), min(bottom + 1, height)
        logits = masks[None, :, first:last].contiguous(memory_format=torch.channels_last)
        size = (ratio * (last - first), padded[1])
        painted = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        painted = painted[ratio * (top - first) : ratio * (bottom - first)].sigmoid_()
        total[ratio * top : ratio * bottom] = painted @ weights
    return total


def _instances(masks: Tensor, forged: Tensor, padded: Size, unpadded: Size, original: Size, limit: int) -> Instances:
    """The confident queries as Detectron2 instances: score = p(forged) × mean mask probability inside the mask."""
    confidence, order = forged.sort(descending=True)
    kept = order[confidence >= _INSTANCE_CONFIDENCE][:limit].tolist()
    queries = ((masks[query], forged[query]) for query in kept)
    found = _painted_instances(queries, padded, unpadded, original)
    return forged_instances(found, most=len(kept), size=original, device=masks.device)


def _painted_instances(
    queries: Iterable[tuple[Tensor, Tensor]], padded: Size, unpadded: Size, original: Size
) -> Iterator[tuple[Tensor, Tensor]]:
    """Mask logits h×w and p(forged) of each query -> its mask H×W and score, unless the mask is empty."""
    for logits, confidence in queries:
        painted = F.interpolate(logits[None, None], size=padded, mode="bilinear", align_corners=False)[0, 0]
        probability = to_original(painted.sigmoid_(), unpadded, original)
        mask = probability > 0.5
        if area := int(mask.sum()):
            yield mask, confidence * probability.mul_(mask).sum() / area


def _build_criterion(cfg) -> SetCriterion:
    former = cfg.MODEL.MASK_FORMER
    matcher = HungarianMatcher(
        class_weight=former.CLASS_WEIGHT,
        mask_weight=former.MASK_WEIGHT,
        dice_weight=former.DICE_WEIGHT,
        num_points=former.TRAIN_NUM_POINTS,
    )
    return SetCriterion(
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        matcher=matcher,
        class_weight=former.CLASS_WEIGHT,
        mask_weight=former.MASK_WEIGHT,
        dice_weight=former.DICE_WEIGHT,
        no_object_weight=former.NO_OBJECT_WEIGHT,
        num_points=former.TRAIN_NUM_POINTS,
        oversample_ratio=former.OVERSAMPLE_RATIO,
        importance_sample_ratio=former.IMPORTANCE_SAMPLE_RATIO,
        deep_supervision=former.DEEP_SUPERVISION,
    )
