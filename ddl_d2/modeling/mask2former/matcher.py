"""Matching of queries with targets (Carion et al., DETR, arXiv 2005.12872; costs of Mask2Former, section 3.3).

Shapes: `N` prediction sets (decoder layers), `Q` queries, `C` channels, `K` classes, `T` targets of one image,
`P` points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from detectron2.projects.point_rend.point_features import point_sample
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ddl_d2.errors import NonFiniteError
from ddl_d2.layers.linear import linear
from ddl_d2.modeling.losses import pairwise_dice, pairwise_sigmoid_bce


@dataclass
class Targets:
    """What is forged in one image of the batch, at the padded size.

    Attributes:
        classes: int64 T; T may be 0 (a real image).
        masks: bool T×h×w.
        image_id: names the image in errors.
        supervised: False: the mask is unknown, and the image is left out of the loss.
    """

    classes: Tensor
    masks: Tensor
    image_id: str
    supervised: bool = True

    def without_masks(self) -> Targets:
        """Return the image with nothing to be matched."""
        return replace(self, classes=self.classes[:0], masks=self.masks[:0])


class HungarianMatcher:
    """Minimum-cost one-to-one assignment of targets to queries, for all prediction sets of an image at once.

    All masks of an image are compared on the same `num_points` random points, drawn once for all its sets. With one
    target (the usual case here) the assignment is the cheapest query; more are solved by the Hungarian algorithm.
    """

    def __init__(self, *, class_weight: float, mask_weight: float, dice_weight: float, num_points: int) -> None:
        """Set the weights of the costs.

        Args:
            class_weight: of the class probability.
            mask_weight: of the points' binary cross-entropy.
            dice_weight: of the points' dice.
            num_points: P.
        """
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points

    @torch.no_grad()
    def costs(
        self, logits: Tensor, embeddings: Tensor, mask_features: Tensor, classes: Tensor, masks: Tensor
    ) -> Tensor:
        """Compute the cost of every pair of query and target in one image.

        Args:
            logits: N×Q×(K+1).
            embeddings: N×Q×C.
            mask_features: C×H×W.
            classes: int64 T.
            masks: bool T×h×w.

        Returns:
            fp32 N×Q×T.
        """
        if len(classes) == 0:
            return logits.new_zeros((*logits.shape[:2], 0), dtype=torch.float32)
        points = torch.rand(1, self.num_points, 2, device=mask_features.device)
        targets = sample_masks(masks, points.expand(len(masks), -1, -1))
        features = point_sample(mask_features.float()[None], points, align_corners=False)[0]  # C×P
        sampled = linear(embeddings.float().flatten(0, 1), features.t())  # (N·Q)×P
        cost = self.mask_weight * pairwise_sigmoid_bce(sampled, targets)
        cost += self.dice_weight * pairwise_dice(sampled, targets)
        cost = cost.unflatten(0, logits.shape[:2])
        return cost - self.class_weight * logits.float().softmax(dim=-1)[..., classes]

    @torch.no_grad()
    def __call__(
        self, logits: Tensor, embeddings: Tensor, mask_features: Tensor, targets: list[Targets]
    ) -> list[tuple[Tensor, Tensor]]:
        """Match the queries of every image with its targets.

        Args:
            logits: N×B×Q×(K+1).
            embeddings: N×B×Q×C.
            mask_features: B×C×H×W.
            targets: of each image.

        Returns:
            (query, target) indices of each image, each N×min(Q, T).

        Raises:
            NonFiniteError: a cost is not finite; names the images.
        """
        with torch.autocast(device_type=logits.device.type, enabled=False):
            costs = [
                self.costs(logits[:, b], embeddings[:, b], mask_features[b], target.classes, target.masks)
                for b, target in enumerate(targets)
            ]
        # One wait for the GPU, not one an image.
        finite = torch.stack([torch.isfinite(cost).all() for cost in costs]).tolist()
        if not all(finite):
            bad = [target.image_id for target, ok in zip(targets, finite, strict=True) if not ok]
            raise NonFiniteError("the matching cost", bad)
        return [self.assign(cost) for cost in costs]

    def assign(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the assignment for finite costs N×Q×T; returns (query, target) indices, each N×min(Q, T)."""
        num_sets, _, num_targets = cost.shape
        if num_targets == 0:
            none = torch.zeros(num_sets, 0, dtype=torch.int64, device=cost.device)
            return none, none
        if num_targets == 1:
            query = cost.argmin(dim=1)
            return query, torch.zeros_like(query)
        solved = [linear_sum_assignment(set_cost) for set_cost in cost.cpu().numpy()]
        query, target = (torch.stack([torch.from_numpy(s[i]) for s in solved]).to(cost.device) for i in (0, 1))
        return query, target


def sample_masks(masks: Tensor, points: Tensor) -> Tensor:
    """Sample masks M×h×w (bool or float) bilinearly at points M×P×2 (x, y in [0, 1]): fp32 M×P."""
    return point_sample(masks[:, None].float(), points, align_corners=False)[:, 0]
