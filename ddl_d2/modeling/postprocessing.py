"""From the network's maps to predictions at the size of the original image, for every system.

Shapes: `B` images, `H, W` pixels. A size is (height, width); an image has three: `original` (on disk), `unpadded`
(as the network got it) and `padded` (in its batch).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Instances
from torch import Tensor

Size = tuple[int, int]


def original_size(row: dict[str, Any]) -> Size:
    """Return the size of a row's outputs: `height` and `width` of the original, or else those of `image`."""
    if "height" in row and "width" in row:
        return row["height"], row["width"]
    return row["image"].shape[-2], row["image"].shape[-1]


def to_original(padded_map: Tensor, unpadded: Size, original: Size) -> Tensor:
    """Remove the padding of a map at the network's input size, and resize the rest to the original size."""
    if unpadded == original:
        return padded_map[: unpadded[0], : unpadded[1]].contiguous()
    return sem_seg_postprocess(padded_map[None], unpadded, *original)[0]


def map_output(
    row: dict[str, Any], probabilities: Tensor, unpadded: Size, *, threshold: float, mode: str, limit: int
) -> dict[str, Any]:
    """Make `forgery_map` and `instances` of a row, at its original size, from a map.

    Args:
        row: says the original size.
        probabilities: float in [0, 1] at the network's input size, which may be padded beyond `unpadded`.
        unpadded: (height, width) of the image within it.
        threshold: see `map_instances`.
        mode: see `map_instances`.
        limit: see `map_instances`.
    """
    forgery_map = to_original(probabilities, unpadded, original_size(row)).clamp_(0, 1)
    instances = map_instances(forgery_map, threshold=threshold, mode=mode, limit=limit)
    return {"forgery_map": forgery_map, "instances": instances}


def forged_instances(
    found: Iterable[tuple[Tensor, Tensor]], *, most: int, size: Size, device: torch.device
) -> Instances:
    """Collect regions as Detectron2 instances of class 0.

    Each mask is copied as it comes: besides the result there is never more than one, of 20 MB if the image has 20 MP.

    Args:
        found: (bool mask H×W, score) of each region; may be empty.
        most: as many regions at most.
        size: (H, W).
        device: of the result.
    """
    masks = torch.empty((most, *size), dtype=torch.bool, device=device)
    scores: list[Tensor] = []
    for mask, score in found:
        masks[len(scores)] = mask
        scores.append(score)
    result = Instances(size)
    result.pred_masks = masks[: len(scores)]
    result.scores = torch.stack(scores) if scores else torch.zeros(0, device=device)
    result.pred_classes = torch.zeros(len(scores), dtype=torch.int64, device=device)
    return result


def map_instances(forgery_map: Tensor, *, threshold: float, mode: str, limit: int) -> Instances:
    """Find the regions where a map exceeds a threshold, as instances scored by the map's mean inside.

    Args:
        forgery_map: float H×W in [0, 1].
        threshold: a pixel is forged where the map is strictly greater.
        mode: "union" (one instance, if any pixel is forged) or "connected_components" (one per 8-connected region).
        limit: the most instances; the largest regions are kept, largest first.
    """
    forged = forgery_map > threshold
    labels, kept = (forged, [1] if forged.any() else []) if mode == "union" else _components(forged, limit)
    kept = kept[:limit]
    regions = (labels == label for label in kept)
    found = ((region, _mean_inside(forgery_map, region)) for region in regions)
    size = (forgery_map.shape[0], forgery_map.shape[1])
    return forged_instances(found, most=len(kept), size=size, device=forgery_map.device)


def _components(forged: Tensor, limit: int) -> tuple[Tensor, list[int]]:
    """Label the 8-connected regions, int32 H×W; returns also the labels of the largest `limit`, the largest first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(forged.cpu().numpy().view(np.uint8), connectivity=8)
    order = np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")[:limit] + 1
    return torch.from_numpy(labels).to(forged.device), order.tolist()


def _mean_inside(values: Tensor, region: Tensor) -> Tensor:
    """Average H×W values over a region that is not empty, without the 16 bytes a pixel that indexing takes."""
    return (values * region).sum() / region.sum()
