"""A forgery mask as Detectron2 instance targets.

The papers do not say how a mask of forged pixels becomes a set of targets. Here:

- one class (`num_classes=1`): class 0 is forged; the mask is one target ("union") or one per 8-connected blob
  ("connected_components"). A picture without forged pixels has no target at all: an empty mask is never a target,
  since matching one makes training diverge.
- two classes (`num_classes=2`): class 0 is the authentic region (one target, if there is any), class 1 is forged.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Instances

MODES = ("union", "connected_components")


def forgery_mask_to_instances(
    mask: np.ndarray,
    *,
    mode: str = "union",
    num_classes: int = 1,
    min_area: int = 16,
    max_instances: int = 100,
) -> Instances:
    """Targets of one picture.

    Args:
        mask: bool H x W, True = forged.
        mode: "union" or "connected_components" (of the forged pixels).
        num_classes: 1 (forged) or 2 (authentic, forged).
        min_area: connected components of fewer pixels are dropped; the union is never dropped for its size.
        max_instances: only so many connected components, the largest, are kept: a speckled mask has thousands.

    Returns:
        Instances of size H x W with `gt_classes` (int64, N) and `gt_masks` (BitMasks, N x H x W), N >= 0.

    Raises:
        ValueError: an unknown mode or number of classes, or a mask that is not bool H x W.
    """
    if mode not in MODES:
        raise ValueError(f"instances mode {mode!r} is not one of {', '.join(MODES)}")
    if num_classes not in (1, 2):
        raise ValueError(f"num_classes must be 1 (forged) or 2 (authentic, forged), not {num_classes}")
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a forgery mask is bool H x W, not {mask.dtype} {tuple(mask.shape)}")

    forged = _components(mask, min_area, max_instances) if mode == "connected_components" else [mask]
    forged = [part for part in forged if part.any()]
    authentic = [~mask] if num_classes == 2 and not mask.all() else []
    classes = [0] * len(authentic) + [num_classes - 1] * len(forged)

    height, width = mask.shape
    masks = np.stack(authentic + forged) if classes else np.zeros((0, height, width), dtype=bool)
    instances = Instances((height, width))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances


def _components(mask: np.ndarray, min_area: int, max_instances: int) -> list[np.ndarray]:
    """8-connected blobs of at least `min_area` pixels, in raster order of their first pixel."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    kept = np.flatnonzero(areas >= max(min_area, 1))
    if len(kept) > max_instances:
        largest = np.argsort(-areas[kept], kind="stable")[:max_instances]
        kept = np.sort(kept[largest])
    return [labels == index + 1 for index in kept]
