"""Masks of whole regions, for tests."""

import numpy as np

from ddl_d2.forging.regions import polygon_mask, region_polygons


def region_mask(landmarks: np.ndarray, region: str, shape: tuple[int, int], *, area_factor: float = 1.0) -> np.ndarray:
    """Mask one region of a face: bool, of `shape` (H, W)."""
    return polygon_mask(region_polygons(landmarks, region, area_factor=area_factor), shape)
