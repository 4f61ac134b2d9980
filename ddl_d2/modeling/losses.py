"""Mask losses on sampled points, and their pairwise forms for matching (Mask2Former, section 3.3; PointRend).

Shapes: `M` masks, `Q` predictions, `T` targets, `P` points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over points: M×P logits, M×P targets in [0, 1] -> M."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 Σpg + 1) / (Σp + Σg + 1) with p = sigmoid(logits): M×P, M×P -> M."""
    p = logits.sigmoid()
    return 1 - (2 * (p * targets).sum(dim=1) + 1) / (p.sum(dim=1) + targets.sum(dim=1) + 1)


def pairwise_sigmoid_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """`sigmoid_bce` of every pair: Q×P, T×P -> Q×T.

    BCE(x, t) = softplus(x) - x·t, so one softplus a prediction and one matrix product do for all targets.
    """
    return (F.softplus(logits).sum(dim=1, keepdim=True) - logits @ targets.t()) / logits.shape[1]


def pairwise_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """`dice` of every pair: Q×P, T×P -> Q×T."""
    p = logits.sigmoid()
    return 1 - (2 * (p @ targets.t()) + 1) / (p.sum(dim=1, keepdim=True) + targets.sum(dim=1) + 1)


def uncertainty(logits: Tensor) -> Tensor:
    """How undecided a point is: -|logit|, highest at 0."""
    return -torch.abs(logits)
