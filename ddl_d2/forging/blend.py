"""Blending forged content into an image.

The blend is O = I_t' ⊙ M + I_s ⊙ (1 - M): forged content inside the mask, the untouched source outside. (The
local-displacement self-blending paper prints the two exchanged; its own figure and labels say what is built here.)
"""

from __future__ import annotations

import cv2
import numpy as np


def blend(source: np.ndarray, target: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Blend: O = target · soft + source · (1 - soft).

    Args:
        source: uint8 H×W×3.
        target: uint8 H×W×3, the forged content.
        soft: float H×W in [0, 1].

    Returns:
        uint8 H×W×3; bit for bit `source` where `soft` is 0 and `target` where it is 1.

    Raises:
        ValueError: the shapes do not agree.
    """
    if source.shape != target.shape or source.shape[:2] != soft.shape:
        raise ValueError(f"blend needs one size, not {source.shape}, {target.shape} and {soft.shape}")
    weight = soft.astype(np.float32, copy=False)
    # OpenCV divides by the sum of the weights + 1e-5: 255 becomes 254.997, which rounds back
    return cv2.blendLinear(target, source, weight, 1 - weight)
