"""The blobs of forged pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

MAX_REGIONS = 50
"""The most blobs of an image; the smallest are left out."""

MIN_REGION_AREA = 16
"""In pixels: smaller blobs are left out."""


@dataclass(frozen=True)
class ForgedRegion:
    """One 8-connected blob of forged pixels.

    Attributes:
        box: (x0, y0, x1, y1) pixels of the original image, x1 and y1 just outside.
        area: pixels.
        mean_probability: mean of the forgery map over the blob, 0..1.
    """

    box: tuple[int, int, int, int]
    area: int
    mean_probability: float


def forged_regions(forgery_map: np.ndarray, forged: np.ndarray) -> tuple[ForgedRegion, ...]:
    """The blobs of `forged` (bool H×W), largest first; see `PredictionSummary.regions`."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(forged.astype(np.uint8), connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:MAX_REGIONS]
    regions = []
    for i in order:
        x, y, width, height, area = (int(v) for v in stats[i])
        if area < MIN_REGION_AREA:
            break
        window = (slice(y, y + height), slice(x, x + width))
        mean = float(forgery_map[window][labels[window] == i].mean())
        regions.append(ForgedRegion((x, y, x + width, y + height), area, round(mean, 4)))
    return tuple(regions)
