"""Boxes of soft masks, and their loss: a third term of Loupe's slides that its code does not have.

Shapes: `M` masks, `H, W` pixels of them; a box is (x0, y0, x1, y1) in shares of the mask's sides.
"""

from __future__ import annotations

import math

import torch
from fvcore.nn import giou_loss
from torch import Tensor

# Of a box's side, uniform, the standard deviation is side / sqrt(12).
_HALF_SIDE = math.sqrt(3)


def moment_boxes(masks: Tensor) -> Tensor:
    """Return the boxes that have the masks' centers and spreads: of a filled rectangle, the rectangle itself.

    Unlike the box around all pixels above a threshold they are differentiable, and one stray pixel moves them little.

    Args:
        masks: float M×H×W, not negative.

    Returns:
        M×4; of an empty mask, a box of no size at the middle.
    """
    sides = []
    for axis in (1, 2):  # what each column holds, then what each row holds
        share = masks.sum(dim=axis) + 1e-6
        share = share / share.sum(dim=1, keepdim=True)
        count = share.shape[1]
        place = (torch.arange(count, device=masks.device, dtype=masks.dtype) + 0.5) / count
        center = (share * place).sum(dim=1)
        # 1 / (12 count²) is the spread of a pixel itself.
        variance = (share * (place - center[:, None]) ** 2).sum(dim=1) + 1 / (12 * count**2)
        half = _HALF_SIDE * variance.sqrt()
        sides.append((center - half, center + half))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1)


def box_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Compute mean |difference| of the four sides plus 1 - GIoU (Rezatofighi et al., CVPR 2019): M×4, M×4 -> M."""
    return (boxes - targets).abs().mean(dim=1) + giou_loss(boxes, targets)
