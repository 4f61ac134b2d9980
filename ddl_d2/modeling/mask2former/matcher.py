"""Matching of queries with targets (Carion et al., DETR, arXiv 2005.12872; costs of Mask2Former, section 3.3).

Shapes: `N` prediction sets (decoder layers), `Q` queries, `C` channels, `K` classes, `T` targets of one image,
`P` points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from detectron2.projects.point_rend.point_features import point_sample
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ddl_d2.errors import NonFiniteError
from ddl_d2.layers.linear import linear
from ddl_d2.modeling.losses import pairwise_dice, pairwise_sigmoid_bce
from ddl_d2.utils.transfer import to_device


@dataclass
class Targets:
    """What is forged in one image of the batch, at the padded size.

    Attributes:
        classes: int64 T; T may be 0 (a real image).
        masks: bool T×h×w, or float in [0, 1], of any size.
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
        return assignments(costs, [target.image_id for target in targets])


def assignments(costs: list[Tensor], image_ids: list[str]) -> list[tuple[Tensor, Tensor]]:
    """Solve the assignment of every image and set, with one copy to the host for all of them, and one back.

    Args:
        costs: of each image, N×Q×T.
        image_ids: names of the images.

    Returns:
        (query, target) indices of each image, each N×min(Q, T).

    Raises:
        NonFiniteError: a cost is not finite; names the images.
    """
    finite = torch.stack([torch.isfinite(cost).all() for cost in costs]).float()
    several = [cost for cost in costs if cost.shape[2] > 1]
    host = torch.cat([finite, *(cost.flatten() for cost in several)]).cpu().numpy()
    if not host[: len(costs)].all():
        bad = [image_id for image_id, fine in zip(image_ids, host, strict=False) if not fine]
        raise NonFiniteError("the matching cost", bad)
    solved = _solved(host[len(costs) :], several)
    return [next(solved) if cost.shape[2] > 1 else _cheapest(cost) for cost in costs]


def _cheapest(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the assignment of at most one target."""
    query = cost.argmin(dim=1)
    return query, torch.zeros_like(query)


def _solved(values: np.ndarray, costs: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Solve the assignments of `costs`, whose values the host has one after another."""
    found: list[np.ndarray] = []
    for cost in costs:
        own, values = values[: cost.numel()].reshape(cost.shape), values[cost.numel() :]
        found.append(np.stack([np.stack(linear_sum_assignment(one)) for one in own], axis=1))  # 2×N×M
    if found:
        packed = to_device(torch.from_numpy(np.concatenate([pair.ravel() for pair in found])), costs[0].device)
        for pair, indices in zip(found, packed.split([pair.size for pair in found]), strict=True):
            query, target = indices.view(pair.shape).unbind(0)
            yield query, target


def sample_masks(masks: Tensor, points: Tensor) -> Tensor:
    """Sample masks M×h×w (bool or float) bilinearly at points M×P×2 (x, y in [0, 1]): fp32 M×P."""
    return point_sample(masks[:, None].float(), points, align_corners=False)[:, 0]
