"""What a clip teaches: maps of proposals, labels of frames, and curves of boundaries, from its forged segments.

Pure functions of arrays. Shapes: `D` durations (rows of a map), `T` frames of the network, `n` frames of the clip.
Segments are float K×2, [start, end) in frames.

Source: Cai et al. 2022 and 2023 (BA-TFD and BA-TFD+), and their code.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def parse_durations(text: str) -> list[int]:
    """Read MODEL.BATFD.DURATIONS: first:last, or first:last:step, joined by commas; both ends count.

    "1:3,10:30:10" is [1, 2, 3, 10, 20, 30].

    Raises:
        ValueError: it cannot be read, or the durations do not rise from 1 or more.
    """
    durations: list[int] = []
    for part in text.split(","):
        numbers = [int(number) for number in part.split(":")]
        if len(numbers) > 3 or min(numbers) < 1:
            raise ValueError(part)
        first, last, step = numbers[0], numbers[min(1, len(numbers) - 1)], (numbers[2] if len(numbers) == 3 else 1)
        durations += range(first, last + 1, step)
    if not durations or any(b <= a for a, b in pairwise(durations)):
        raise ValueError(text)
    return durations


def target_map(segments: NDArray[np.floating], frames: int, width: int, durations: list[int]) -> Array:
    """Return how well each proposal fits a forged segment.

    Args:
        segments: K×2; what lies outside the clip is cut off.
        frames: n.
        width: T.
        durations: of the rows, frames.

    Returns:
        float32 D×T in [0, 1]: the highest intersection over union of [b, b + durations[d]] with a segment; 0 for
        proposals that end more than a frame behind the clip.
    """
    start = np.arange(width, dtype=np.float64)[None, :]
    lengths = np.array(durations, dtype=np.float64)[:, None]
    end = start + lengths
    best = np.zeros((len(durations), width))
    for first, last in np.clip(np.asarray(segments, dtype=np.float64).reshape(-1, 2), 0, frames):
        shared = (np.minimum(end, last) - np.maximum(start, first)).clip(min=0)
        best = np.maximum(best, shared / (lengths + (last - first) - shared))
    best[end > frames + 1] = 0
    return best.astype(np.float32)


def frame_labels(segments: NDArray[np.floating], frames: int) -> Array:
    """Return float32 n: 1 for the forged frames, which are [int(start), int(end)) of each segment."""
    labels = np.zeros(frames, dtype=np.float32)
    for first, last in np.asarray(segments, dtype=np.float64).reshape(-1, 2):
        # A hair above, as seconds times 25 may fall below the whole number that they mean.
        labels[max(int(first + 1e-6), 0) : max(int(last + 1e-6), 0)] = 1
    return labels


def stretched(curve: Array, wanted: int) -> Array:
    """Bring a curve to `wanted` points by linear interpolation between the centers of its points."""
    places = (np.arange(wanted, dtype=np.float64) + 0.5) * len(curve) / wanted - 0.5
    return np.interp(places, np.arange(len(curve)), curve).astype(np.float32)


def boundary_curves(segments: NDArray[np.floating], frames: int, width: int) -> tuple[Array, Array]:
    """Return how much of each frame lies where a segment starts, and where one ends.

    A boundary is a region around it: a tenth of its segment's length, at least one frame, as in BSN (Lin et al. 2018).

    Args:
        segments: K×2.
        frames: n.
        width: T.

    Returns:
        start and end, float32 T in [0, 1]: the share of the frame that such a region covers; 0 behind the clip.
    """
    curves = np.zeros((2, width))
    left = np.arange(width) - 0.5
    for segment in np.clip(np.asarray(segments, dtype=np.float64).reshape(-1, 2), 0, frames):
        half = max((segment[1] - segment[0]) / 10, 1) / 2
        for curve, boundary in zip(curves, segment, strict=True):
            covered = np.minimum(left + 1, boundary + half) - np.maximum(left, boundary - half)
            np.maximum(curve, covered.clip(0, 1), out=curve)
    curves[:, frames:] = 0
    return curves[0].astype(np.float32), curves[1].astype(np.float32)
