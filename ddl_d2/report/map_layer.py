"""A forgery map as a layer to put over its image."""

from __future__ import annotations

import cv2
import matplotlib as mpl
import numpy as np

COLOR_MAP = "inferno"
"""Its lightness rises evenly, so it reads in gray and for every kind of color blindness."""

_LONGEST = 1024


def shown_size(height: int, width: int) -> tuple[int, int]:
    """(W, H) at which an image is shown: its longer side is 1024 pixels at most."""
    factor = min(1.0, _LONGEST / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def shown_image(image: np.ndarray) -> np.ndarray:
    """An image (uint8 H×W×3) at the size at which it is shown."""
    return cv2.resize(image, shown_size(*image.shape[:2]), interpolation=cv2.INTER_AREA)


def map_layer(forgery_map: np.ndarray, map_threshold: float) -> np.ndarray:
    """Draw a forgery map in colors, the more opaque the higher, with a line around what is above the threshold.

    Args:
        forgery_map: float H×W in [0, 1].
        map_threshold: a pixel above it counts as forged; the line is white between two dark ones, to be seen on any
            image and without color.

    Returns:
        uint8 H'×W'×4 RGBA at the size of `shown_image`.
    """
    size = shown_size(*forgery_map.shape)
    shown = np.clip(cv2.resize(forgery_map.astype(np.float32), size, interpolation=cv2.INTER_AREA), 0, 1)
    layer = np.rint(255 * mpl.colormaps[COLOR_MAP](shown)).astype(np.uint8)
    layer[..., 3] = np.rint(255 * np.clip(0.1 + 0.9 * shown, 0, 1))
    lines, _ = cv2.findContours((shown > map_threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for color, width in (((0, 0, 0, 255), 4), ((255, 255, 255, 255), 2)):
        cv2.drawContours(layer, lines, -1, color, width)
    return layer
