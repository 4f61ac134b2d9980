"""Traces that earlier processing left in the pixels: an earlier JPEG save, and an enlargement.

How often each is found, and found wrongly, `benchmarks/benchmark_traces.py` measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_BLOCK, _WINDOW, _SMALLEST = 8, 512, 64  # pixels
_QUALITIES = range(40, 100)
_FLAT = 1.0  # gray levels
_SPAN = 4
_NEAR = 4
DIP = 0.1
"""From what depth on a dip in the error of saving again counts, natural logarithm."""

_LOWEST_FREQUENCY = 0.06  # cycles per pixel; below, the image itself is periodic enough
_NEIGHBORS = 20
PEAK = 9.0
"""From how many times its surroundings on a peak of the second derivative's spectrum counts."""


@dataclass(frozen=True)
class Enlargement:
    """A periodic trace of interpolation.

    Attributes:
        strength: the highest peak over its surroundings.
        frequency: of the peak, cycles per pixel.
    """

    strength: float
    frequency: float

    @property
    def found(self) -> bool:
        """Whether the peak is higher than chance makes it."""
        return self.strength >= PEAK


def is_large_enough(luma: NDArray[np.uint8]) -> bool:
    """Tell whether there are pixels enough to look for traces."""
    return min(luma.shape) >= _SMALLEST


def earlier_qualities(luma: NDArray[np.uint8], *, saved_at: int | None = None) -> list[tuple[int, float]]:
    """Find JPEG qualities at which an image was saved before (the ghosts of Farid, IEEE TIFS 2009).

    What was saved at a quality before loses little when it is saved at that quality again: the error of saving it
    at rising qualities has a dip there. A later save at a lower quality, or any scaling or cropping off the grid of
    8 pixels, covers the trace.

    Args:
        luma: H×W, not turned, at least 64 a side.
        saved_at: the quality of the file itself if it is a JPEG; only earlier saves at lower ones are told.

    Returns:
        (quality 44..95, depth of the dip) of each, deepest first.
    """
    gray = _center(luma)
    if gray.std() < _FLAT:
        return []  # its error is that of one value, and dips by chance
    errors = [float(np.square(gray.astype(np.float32) - _saved(gray, quality)).mean()) for quality in _QUALITIES]
    logs = np.log(np.array(errors) + 0.02)  # a flat image has no error at all
    offsets = np.array([-4, -3, -2, 2, 3, 4])
    found = []
    for index in range(_SPAN, len(logs) - _SPAN):
        quality = _QUALITIES[index]
        if saved_at is not None and quality >= saved_at - _NEAR:
            break
        expected = np.polyval(np.polyfit(offsets, logs[index + offsets], 1), 0)
        depth = float(expected - logs[index])
        if depth >= DIP:
            found.append((quality, depth))
    kept: list[tuple[int, float]] = []
    for quality, depth in sorted(found, key=lambda pair: -pair[1]):
        if all(abs(quality - other) > _NEAR for other, _ in kept):
            kept.append((quality, depth))
    return kept


def enlargement(luma: NDArray[np.uint8]) -> Enlargement:
    """Look for the periodic trace that enlarging leaves (Gallagher, CRV 2005): of the second derivative's size.

    Shrinking leaves next to none, and strong compression covers it; frequencies of JPEG's blocks are left out.

    Args:
        luma: H×W, not turned, at least 64 a side.
    """
    gray = luma.astype(np.float32)
    peaks = [_highest_peak(lines) for lines in (gray, np.ascontiguousarray(gray.T))]
    strength, frequency = max(peaks)
    return Enlargement(strength, frequency)


def _center(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of an image, at most 512 a side, on the grid of JPEG's blocks."""
    parts = []
    for length in luma.shape:
        size = min(length, _WINDOW) // _BLOCK * _BLOCK
        start = (length - size) // 2 // _BLOCK * _BLOCK
        parts.append(slice(start, start + size))
    return np.ascontiguousarray(luma[tuple(parts)])


def _saved(gray: NDArray[np.uint8], quality: int) -> NDArray[np.float32]:
    data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.float32)


def _highest_peak(lines: NDArray[np.float32]) -> tuple[float, float]:
    """(height over the surroundings, frequency) of the highest peak along the rows."""
    second = np.abs(lines[:, 2:] - 2 * lines[:, 1:-1] + lines[:, :-2]).mean(0)
    second -= cv2.blur(second[None], (9, 1), borderType=cv2.BORDER_REFLECT)[0]
    count = len(second)
    spectrum = np.abs(np.fft.rfft(second * np.hanning(count)))
    frequencies = np.arange(len(spectrum)) / count
    usable = frequencies > _LOWEST_FREQUENCY
    for multiple in range(1, 5):
        usable &= np.abs(frequencies - multiple / _BLOCK) > 2.5 / count
    padded = np.pad(spectrum, _NEIGHBORS, mode="reflect")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBORS + 1), axis=1)
    heights = np.where(usable & (around > 0), spectrum / np.maximum(around, 1e-9), 0)
    highest = int(heights.argmax())
    return float(heights[highest]), float(frequencies[highest])
