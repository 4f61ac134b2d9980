"""Soft masks and blending.

The blend is O = I_t' ⊙ M + I_s ⊙ (1 - M): forged content inside the mask, the untouched source outside. (The
local-displacement self-blending paper prints the two exchanged; its own figure and labels say what is built here.)
"""

from __future__ import annotations

import cv2
import numpy as np

_FAINTEST = 1.0 / 64


def soft_mask(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Soften the edge of a mask.

    A Gaussian over the edge, rescaled so that its peak is 1; the faint tail below 1/64 is cut to 0, so that the
    picture is left alone there. The half-way line stays on the edge of the mask wherever the mask is wider than a
    few `sigma`.

    Args:
        mask: bool H×W.
        sigma: of the Gaussian, pixels; 0 leaves the edge hard.

    Returns:
        float32 H×W in [0, 1].
    """
    soft = mask.astype(np.float32)
    if sigma > 0 and mask.any():
        soft = cv2.GaussianBlur(soft, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        soft = np.minimum(soft / soft.max(), 1.0)
        soft[soft < _FAINTEST] = 0.0
    return soft


def blend(source: np.ndarray, target: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """O = target · soft + source · (1 - soft).

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
    weight = soft.astype(np.float32)[..., None]
    mixed = target.astype(np.float32) * weight + source.astype(np.float32) * (1 - weight)
    mixed = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return np.where(weight == 0, source, np.where(weight == 1, target, mixed))
