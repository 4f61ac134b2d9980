"""Clips that are longer than the network sees at once: predicted in overlapping windows, which are put together.

Shapes: `t` frames of a clip, `T` frames of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddl_d2.layers.log_mel import SAMPLES_PER_FRAME


@dataclass(frozen=True, kw_only=True)
class WindowPrediction:
    """What the network says of a clip, or of a window of it, before repetitions are suppressed.

    Attributes:
        candidates: float64 K×3, [confidence, start, end] in frames.
        frame_scores: {modality: float32 t in [0, 1]}.
    """

    candidates: NDArray[np.float64]
    frame_scores: dict[str, Tensor]


def window_starts(frames: int, width: int, overlap: float) -> list[int]:
    """Return the first frame of each window of `width` frames; the last window ends with the clip.

    Args:
        frames: t.
        width: T.
        overlap: the share of a window that the next shows again, in [0, 1).
    """
    if frames <= width:
        return [0]
    step = max(int(width * (1 - overlap)), 1)
    return [*range(0, frames - width, step), frames - width]


def windows_of(row: dict[str, Any], starts: list[int], width: int) -> Iterator[dict[str, Any]]:
    """Yield the row of each window: no more of the clip than one window is cut out at a time."""
    for start in starts:
        frames = row["frames"][:, start : start + width]
        sound = row["audio"][start * SAMPLES_PER_FRAME : (start + width) * SAMPLES_PER_FRAME]
        yield row | {"frames": frames, "audio": sound, "num_frames": min(width, int(row["num_frames"]) - start)}


def merged(windows: list[WindowPrediction], starts: list[int], frames: int) -> WindowPrediction:
    """Put the predictions of windows together: candidates are shifted, frame scores averaged where windows overlap.

    Args:
        windows: of a clip.
        starts: their first frames.
        frames: t.
    """
    shifted = [w.candidates + np.array([0, start, start]) for w, start in zip(windows, starts, strict=True)]
    curves = {
        modality: _averaged([window.frame_scores[modality] for window in windows], starts, frames)
        for modality in windows[0].frame_scores
    }
    return WindowPrediction(candidates=np.concatenate(shifted), frame_scores=curves)


def _averaged(curves: list[Tensor], starts: list[int], frames: int) -> Tensor:
    total, count = torch.zeros(frames), torch.zeros(frames)
    for start, curve in zip(starts, curves, strict=True):
        total[start : start + len(curve)] += curve
        count[start : start + len(curve)] += 1
    return total / count
