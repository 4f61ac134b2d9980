"""How marked pixels of a face differ from the skin beside them: sharpness, noise, and the color step at the border.

Shapes: `H, W` pixels of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

FEWEST_PIXELS = 64
"""On either side: fewer say nothing of sharpness and noise."""

_NEAR = 0.25  # of the face's width: how far skin is looked for
_BAND = 0.03  # likewise: the width of the bands on both sides of the border
_ALIKE = 1.25  # a ratio between this and its inverse is no difference to speak of
_VISIBLE = 2.3  # a color step of CIE76 that one just sees (Mahy et al., 1994)


class Signals(NamedTuple):
    """What of an image is compared.

    Attributes:
        edges: H×W, strength of the gradient after a little smoothing, in gray levels per pixel.
        grain: H×W, what that smoothing took away, in gray levels.
        lab: H×W×3, CIE L*a*b*.
    """

    edges: Floats
    grain: Floats
    lab: Floats


@dataclass(frozen=True)
class Differences:
    """Marked pixels against the skin beside them.

    Attributes:
        sharpness: mean strength of the gradient, as a ratio; below 1: softer.
        noise: mean of what a little smoothing takes away, as a ratio; below 1: cleaner.
        color_step: CIE76 difference of the mean colors of the bands on both sides of the border; None without a border
            to skin.
    """

    sharpness: float
    noise: float
    color_step: float | None

    def in_words(self) -> str:
        """Say it in one sentence without a full stop."""
        parts = [
            f"{_compared(self.sharpness, 'softer', 'sharper', 'as sharp')} than the skin beside it",
            f"with {_compared(self.noise, 'less', 'more', 'as much')} noise",
        ]
        parts[0] = parts[0].replace("as sharp than", "as sharp as")
        if self.color_step is not None:
            seen = "a visible" if self.color_step >= _VISIBLE else "no visible"
            parts.append(f"and {seen} color step at the border (ΔE {self.color_step:.1f})")
        return ", ".join(parts)


def signals_of(image: NDArray[np.uint8]) -> Signals:
    """Compute what is compared of an image (uint8 H×W×3 RGB)."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(gray, (0, 0), 1.0)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return Signals(cv2.magnitude(across, down), np.abs(gray - smooth), lab)


def measure_differences(signals: Signals, marked: Bools, skin: Bools, *, face_width: float) -> Differences | None:
    """Compare marked pixels with the unmarked skin beside them.

    Args:
        signals: of the image.
        marked: H×W, the pixels to compare.
        skin: H×W, unmarked pixels of the face and around it; those near `marked` are taken.
        face_width: in pixels.

    Returns:
        The differences; None if either side has fewer than `FEWEST_PIXELS` pixels.
    """
    band = max(2, round(_BAND * face_width))
    beside = skin & (_distance_to(marked) <= max(2 * band, round(_NEAR * face_width)))
    if min(np.count_nonzero(marked), np.count_nonzero(beside)) < FEWEST_PIXELS:
        return None
    inner, outer = marked & (_distance_to(beside) <= band), beside & (_distance_to(marked) <= band)
    step = None
    if inner.any() and outer.any():
        step = round(float(np.linalg.norm(signals.lab[inner].mean(0) - signals.lab[outer].mean(0))), 2)
    return Differences(_ratio(signals.edges, marked, beside), _ratio(signals.grain, marked, beside), step)


def _distance_to(mask: Bools) -> Floats:
    """The distance of each pixel to the nearest of `mask`, H×W in pixels."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3), np.float32)


def _ratio(signal: Floats, marked: Bools, beside: Bools) -> float:
    # A hundredth of a gray level: flat against flat is alike.
    return round(float((signal[marked].mean() + 0.01) / (signal[beside].mean() + 0.01)), 3)


def _compared(ratio: float, less: str, more: str, alike: str) -> str:
    if 1 / _ALIKE <= ratio <= _ALIKE:
        return alike
    return f"{less if ratio < 1 else more} ({ratio:.2f} times)"
