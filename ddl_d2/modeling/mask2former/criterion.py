"""The training loss of the query decoder: a set loss with deep supervision (Mask2Former, section 3.3; DETR).

Shapes: `B` images, `N` prediction sets, `Q` queries, `C` channels, `K` classes, `T` targets of an image, `M` matched
masks of the batch in one set, `P` points, `H, W` pixels of the mask features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample
from detectron2.utils import comm
from torch import Tensor, nn

from ddl_d2.layers.linear import linear
from ddl_d2.modeling.losses import dice, sigmoid_bce, uncertainty
from ddl_d2.modeling.mask2former.boxes import box_loss, moment_boxes
from ddl_d2.modeling.mask2former.matcher import HungarianMatcher, Targets, sample_masks
from ddl_d2.modeling.mask2former.query_decoder import QueryPredictions
from ddl_d2.utils.transfer import on_device

PointLoss = Callable[[Tensor, Tensor], Tensor]
"""From logits M×P and targets M×P to losses M."""


@dataclass(frozen=True)
class BatchCounts:
    """What the losses of a batch are divided by; known before any matching, as each target gets a query of its own.

    Attributes:
        images: the number of targets of each image, and whether it is supervised.
        parts: in how many equal parts the batch goes through the network.
    """

    images: Sequence[tuple[int, bool]]
    parts: int = 1

    def matched(self, num_queries: int) -> int:
        """Count the targets that get one of Q queries."""
        return sum(min(count, num_queries) for count, _ in self.images)

    def class_weight(self, num_queries: int, no_object_weight: float) -> float:
        """Sum the weights of the supervised images' Q queries in the cross-entropy, for a part of the batch."""
        counts = [min(count, num_queries) for count, supervised in self.images if supervised]
        weight = sum(count + no_object_weight * (num_queries - count) for count in counts)
        return max(weight, 1e-6) / self.parts


class SetCriterion(nn.Module):
    """Losses of class, pixels and regions of the matched queries, summed over the prediction sets.

    Mask2Former's are a cross-entropy of classes, and at points a binary cross-entropy and dice.

    Only matched queries get masks: the others' masks carry no gradient, so painting them would be waste.
    """

    empty_weight: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        matcher: HungarianMatcher,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        no_object_weight: float,
        num_points: int,
        oversample_ratio: float,
        importance_sample_ratio: float,
        deep_supervision: bool,
        mask_loss: PointLoss = sigmoid_bce,
        region_loss: PointLoss = dice,
        box_weight: float = 0.0,
    ) -> None:
        """Set the weights and how points are sampled.

        Args:
            num_classes: K.
            matcher: says which query answers for which target.
            class_weight: of the cross-entropy.
            mask_weight: of `mask_loss`.
            dice_weight: of `region_loss`.
            no_object_weight: of class K, "no object", in the cross-entropy.
            num_points: P, of each mask.
            oversample_ratio: so many times P points are drawn, from which the least certain are chosen (PointRend).
            importance_sample_ratio: share of P that is chosen so; the rest is drawn anew.
            deep_supervision: teach all prediction sets, or the last alone.
            mask_loss: of a mask's points, one by one.
            region_loss: of a mask's points, all together.
            box_weight: of the loss of the masks' boxes (`boxes.box_loss`); 0: there is none.
        """
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.deep_supervision = deep_supervision
        self.no_object_weight = no_object_weight
        self.mask_loss, self.region_loss, self.box_weight = mask_loss, region_loss, box_weight
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        # Not part of a checkpoint: the config says it.
        self.register_buffer("empty_weight", empty_weight, persistent=False)

    def forward(
        self, predictions: QueryPredictions, targets: list[Targets], whole: BatchCounts | None = None
    ) -> dict[str, Tensor]:
        """Match queries with targets and compute the losses.

        Args:
            predictions: the N sets.
            targets: of each image.
            whole: of the batch that the images are a part of; None: they are all of it.

        Returns:
            weighted `loss_ce`, `loss_mask`, `loss_dice` (the region loss, whichever it is), with a `box_weight`
            `loss_box`, of the last set, and `..._{i}` of set i before it.

        Raises:
            NonFiniteError: a matching cost is not finite; names the images.
        """
        targets = [target if target.supervised else target.without_masks() for target in targets]
        first = 0 if self.deep_supervision else len(predictions.logits) - 1
        logits = torch.stack(predictions.logits[first:]).float()
        embeddings = torch.stack(predictions.mask_embeddings[first:])
        features = predictions.mask_features
        whole = whole or BatchCounts([(len(t.masks), t.supervised) for t in targets])
        matches = self.matcher(logits, embeddings, features, targets)
        loss_ce = self._class_loss(logits, targets, matches, whole)
        by_term = {"loss_ce": loss_ce, **self._mask_losses(embeddings, features, targets, matches, whole)}
        weights = {"loss_ce": self.class_weight, "loss_mask": self.mask_weight, "loss_dice": self.dice_weight}
        weights["loss_box"] = self.box_weight

        losses: dict[str, Tensor] = {}
        for i in range(len(logits)):
            suffix = "" if i == len(logits) - 1 else f"_{i}"
            losses |= {f"{term}{suffix}": weights[term] * loss[i] for term, loss in by_term.items()}
        return losses

    def _class_loss(
        self, logits: Tensor, targets: list[Targets], matches: list[tuple[Tensor, Tensor]], whole: BatchCounts
    ) -> Tensor:
        """Compute the cross-entropy, weighted by class, of the supervised images' queries: N×B×Q×(K+1) -> N."""
        num_sets, batch, num_queries, _ = logits.shape
        wanted = torch.full((num_sets, batch, num_queries), self.num_classes, device=logits.device)
        for b, (target, (query, index)) in enumerate(zip(targets, matches, strict=True)):
            wanted[:, b].scatter_(1, query, target.classes[index])
        supervised = on_device([t.supervised for t in targets], logits.device)
        weight = self.empty_weight[wanted] * supervised[:, None]
        loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(weight)
        return (loss * weight).sum(dim=(1, 2)) / whole.class_weight(num_queries, self.no_object_weight)

    def _mask_losses(
        self,
        embeddings: Tensor,
        features: Tensor,
        targets: list[Targets],
        matches: list[tuple[Tensor, Tensor]],
        whole: BatchCounts,
    ) -> dict[str, Tensor]:
        """Compute the masks' losses, each N, divided by the number of target masks in the global batch (at least 1)."""
        num_sets, count = embeddings.shape[0], sum(query.shape[1] for query, _ in matches)
        num_masks = _global_mean(whole.matched(embeddings.shape[2]), features.device) / whole.parts
        if count == 0:
            # Nothing is forged in this batch: zero, but still attached to every parameter that makes masks.
            zero = ((embeddings.sum() + features.sum()) * 0.0).expand(num_sets)
            return {"loss_mask": zero, "loss_dice": zero} | ({"loss_box": zero} if self.box_weight else {})
        with torch.autocast(device_type=features.device.type, enabled=False):
            masks = _paint(embeddings, features, matches)
            with torch.no_grad():
                points = get_uncertain_point_coords_with_randomness(
                    masks, uncertainty, self.num_points, self.oversample_ratio, self.importance_sample_ratio
                )
                wanted = _sample_targets(targets, matches, points.unflatten(0, (num_sets, count))).flatten(0, 1)
            logits = point_sample(masks, points, align_corners=False)[:, 0]
            losses = {"loss_mask": self.mask_loss(logits, wanted), "loss_dice": self.region_loss(logits, wanted)}
            if self.box_weight:
                losses["loss_box"] = box_loss(moment_boxes(masks[:, 0].sigmoid()), _target_boxes(targets, matches))
            return {term: loss.view(num_sets, count).sum(dim=1) / num_masks for term, loss in losses.items()}


def _paint(embeddings: Tensor, features: Tensor, matches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Compute mask logits (N·M)×1×H×W of the matched embeddings, set by set, by one matrix product an image."""
    painted = []
    for b, (query, _) in enumerate(matches):
        if query.shape[1]:
            chosen = embeddings[:, b].gather(1, query[..., None].expand(-1, -1, embeddings.shape[-1]))
            masks = linear(chosen.flatten(0, 1).float(), features[b].flatten(1).t().float())
            painted.append(masks.view(*query.shape, *features.shape[-2:]))
    return torch.cat(painted, dim=1).flatten(0, 1)[:, None]


def _target_boxes(targets: list[Targets], matches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the box of the target of every match, set by set: (N·M)×4."""
    boxes = [
        moment_boxes(target.masks.float())[index]
        for target, (_, index) in zip(targets, matches, strict=True)
        if index.shape[1]
    ]
    return torch.cat(boxes, dim=1).flatten(0, 1)


def _sample_targets(targets: list[Targets], matches: list[tuple[Tensor, Tensor]], points: Tensor) -> Tensor:
    """Sample targets at points N×M×P×2, without a copy of a target mask for each set: N×M×P."""
    owns = points.split([index.shape[1] for _, index in matches], dim=1)
    return torch.cat(
        [
            _sampled(target.masks, index, own)
            for target, (_, index), own in zip(targets, matches, owns, strict=True)
            if index.shape[1]
        ],
        dim=1,
    )


def _sampled(masks: Tensor, index: Tensor, points: Tensor) -> Tensor:
    """Sample one image's masks T×h×w at points N×M×P×2 of the matches that `index`, N×M, gives them: N×M×P."""
    num_sets, matched, num_points, _ = points.shape
    # The points in the order of the targets, so that each mask is read once for all sets. A target that no query was
    # left for gets the points of the first match; nobody asks for its values.
    order = torch.arange(matched, device=index.device).expand_as(index)
    match = index.new_zeros(num_sets, len(masks)).scatter_(1, index, order)
    by_target = points.gather(1, match[..., None, None].expand(-1, -1, num_points, 2)).transpose(0, 1)
    values = sample_masks(masks, by_target.flatten(1, 2)).unflatten(1, (num_sets, num_points)).transpose(0, 1)
    return values.gather(1, index[..., None].expand(-1, -1, num_points))


def _global_mean(count: int, device: torch.device) -> Tensor:
    """Average the number of target masks over the ranks; at least 1."""
    total = torch.full((), float(count), device=device)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return (total / comm.get_world_size()).clamp(min=1)
