"""The training loss of the query decoder: a set loss with deep supervision (Mask2Former, section 3.3; DETR).

Shapes: `B` pictures, `N` prediction sets, `Q` queries, `C` channels, `K` classes, `T` targets of a picture, `M` matched
masks of the batch in one set, `P` points, `H, W` pixels of the mask features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample
from detectron2.utils import comm
from torch import Tensor, nn

from ddl_d2.modeling.losses import dice, sigmoid_bce, uncertainty
from ddl_d2.modeling.matcher import HungarianMatcher, sample_masks
from ddl_d2.modeling.query_decoder import QueryPredictions


@dataclass
class Targets:
    """What is forged in one picture of the batch, at the padded size.

    `classes` T int64; `masks` T×h×w bool; T may be 0 (a real picture). `supervised` False: the mask is unknown, and the
    picture is left out of the loss.
    """

    classes: Tensor
    masks: Tensor
    image_id: str
    supervised: bool = True


@dataclass
class _Matches:
    """Matched pairs of all sets and pictures, set-major: entry i belongs to set `i // M`."""

    embeddings: Tensor  # (N·M)×C
    picture: Tensor  # (N·M)
    targets: Tensor  # M_all×h×w, the batch's target masks
    target: Tensor  # (N·M), index into `targets`
    count: int  # M


class SetCriterion(nn.Module):
    """Class cross-entropy, point BCE and point dice of the matched queries, summed over the prediction sets.

    Only matched queries get masks: the others' masks carry no gradient, so painting them would be waste.

    Args:
        num_classes: `K`; no_object_weight: weight of class K in the cross-entropy.
        class_weight, mask_weight, dice_weight: of the three terms.
        num_points, oversample_ratio, importance_sample_ratio: point sampling of the mask terms (PointRend).
        deep_supervision: all sets, or the last alone.
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
    ):
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
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        # Not part of a checkpoint: the config says it.
        self.register_buffer("empty_weight", empty_weight, persistent=False)

    def forward(self, predictions: QueryPredictions, targets: list[Targets]) -> dict[str, Tensor]:
        """-> weighted `loss_ce`, `loss_mask`, `loss_dice` of the last set, and `..._{i}` of set i before it."""
        first = 0 if self.deep_supervision else len(predictions.logits) - 1
        logits = torch.stack(predictions.logits[first:]).float()
        embeddings = torch.stack(predictions.mask_embeddings[first:])
        features = predictions.mask_features
        matches = [
            self.matcher(logits[:, b], embeddings[:, b], features[b], t.classes, t.masks, t.image_id)
            for b, t in enumerate(targets)
        ]
        loss_ce = self._class_loss(logits, targets, matches)
        loss_mask, loss_dice = self._mask_losses(embeddings, features, self._collect(embeddings, targets, matches))

        losses = {}
        for i in range(len(logits)):
            suffix = "" if i == len(logits) - 1 else f"_{i}"
            losses[f"loss_ce{suffix}"] = self.class_weight * loss_ce[i]
            losses[f"loss_mask{suffix}"] = self.mask_weight * loss_mask[i]
            losses[f"loss_dice{suffix}"] = self.dice_weight * loss_dice[i]
        return losses

    def _class_loss(self, logits: Tensor, targets: list[Targets], matches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """N×B×Q×(K+1) -> N: cross-entropy weighted by class, over the supervised pictures' queries."""
        num_sets, batch, num_queries, _ = logits.shape
        wanted = torch.full((num_sets, batch, num_queries), self.num_classes, device=logits.device)
        for b, (target, (query, index)) in enumerate(zip(targets, matches, strict=True)):
            wanted[:, b].scatter_(1, query, target.classes[index])
        supervised = torch.tensor([t.supervised for t in targets], device=logits.device)
        weight = self.empty_weight[wanted] * supervised[:, None]
        loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(weight)
        return (loss * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1e-6)

    def _collect(self, embeddings: Tensor, targets: list[Targets], matches: list[tuple[Tensor, Tensor]]) -> _Matches:
        device = embeddings.device
        offsets = [sum(len(t.masks) for t in targets[:b]) for b in range(len(targets))]
        picked, picture, target = [], [], []
        for b, (query, index) in enumerate(matches):
            picked.append(embeddings[:, b].gather(1, query[..., None].expand(-1, -1, embeddings.shape[-1])))
            picture.append(torch.full_like(query, b))
            target.append(index + offsets[b])
        chosen = torch.cat(picked, dim=1)
        return _Matches(
            embeddings=chosen.flatten(0, 1),
            picture=torch.cat(picture, dim=1).flatten(),
            targets=torch.cat([t.masks for t in targets]).to(device),
            target=torch.cat(target, dim=1).flatten(),
            count=chosen.shape[1],
        )

    def _mask_losses(self, embeddings: Tensor, features: Tensor, matches: _Matches) -> tuple[Tensor, Tensor]:
        """-> BCE and dice, each N, both divided by the number of target masks in the global batch (at least 1)."""
        num_sets = embeddings.shape[0]
        num_masks = _global_mean(matches.count, features.device)
        if matches.count == 0:
            # Nothing is forged in this batch: zero, but still attached to every parameter that makes masks.
            zero = (embeddings.sum() + features.sum()) * 0.0
            return zero.expand(num_sets), zero.expand(num_sets)
        with torch.autocast(device_type=features.device.type, enabled=False):
            masks = _paint(matches, features.float())
            with torch.no_grad():
                points = get_uncertain_point_coords_with_randomness(
                    masks, uncertainty, self.num_points, self.oversample_ratio, self.importance_sample_ratio
                )
                wanted = _sample_targets(matches, points)
            logits = point_sample(masks, points, align_corners=False)[:, 0]
            by_set = (num_sets, matches.count)
            bce = sigmoid_bce(logits, wanted).view(by_set).sum(dim=1) / num_masks
            return bce, dice(logits, wanted).view(by_set).sum(dim=1) / num_masks


def _paint(matches: _Matches, features: Tensor) -> Tensor:
    """Mask logits (N·M)×1×H×W of the matched embeddings, one matrix product a picture."""
    size = features.shape[-2:]
    masks = matches.embeddings.new_zeros((len(matches.picture), *size), dtype=torch.float32)
    for b in range(len(features)):
        rows = (matches.picture == b).nonzero()[:, 0]
        if len(rows):
            painted = matches.embeddings[rows].float() @ features[b].flatten(1)
            masks = masks.index_copy(0, rows, painted.unflatten(1, size))
    return masks[:, None]


def _sample_targets(matches: _Matches, points: Tensor) -> Tensor:
    """Target values (N·M)×P at points (N·M)×P×2, without a copy of a target mask per set."""
    wanted = points.new_empty(points.shape[:2])
    for index in range(len(matches.targets)):
        rows = (matches.target == index).nonzero()[:, 0]
        if len(rows):
            values = sample_masks(matches.targets[index : index + 1], points[rows].flatten(0, 1)[None])
            wanted[rows] = values.view(len(rows), -1)
    return wanted


def _global_mean(count: int, device: torch.device) -> Tensor:
    """Mean over ranks of the number of target masks, at least 1."""
    total = torch.tensor(float(count), device=device)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return (total / comm.get_world_size()).clamp(min=1)
