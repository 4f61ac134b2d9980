"""What trivial statistics say about a set of forged clips: a detector should have to look at more than these.

For each statistic, three areas under the ROC curve, 0.5 being chance:

- "inside": forged frames against the other frames of the same clips. A statistic that follows speech or movement tells
  them apart as far as spans fall where people speak;
- "forged": forged frames against the same frames of the real clips that they were made of;
- "around": frames of forged clips outside their spans against the same frames of the real clips. What is not 0.5 here
  is an artifact of how the set was made: it gives forged clips away without a look at what was forged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddl_d2.evaluation.functional.detection import roc_auc
from ddl_d2.io.clip import Clip, read_clip

PICTURE = ("sharpness", "brightness", "contrast", "movement")
SOUND = ("loudness", "centroid", "zero crossings")
COMPARISONS = ("inside", "forged", "around")
_EPS = 1e-9


def frame_statistics(clip: Clip) -> dict[str, np.ndarray]:
    """Compute simple statistics of each frame and of its sound: name -> float (t,).

    `sharpness` is the variance of the Laplacian, `movement` the mean change from the frame before; `loudness` in dB,
    `centroid` the mean frequency weighted by power, as a share of half the rate.
    """
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in clip.frames]
    changes = [float(np.abs(new - old).mean()) for old, new in zip(grays[:1] + grays[:-1], grays, strict=True)]
    bounds = np.rint(np.arange(len(grays) + 1) / clip.fps * clip.audio_rate).astype(int)
    pieces = [clip.audio[first:last] for first, last in pairwise(bounds)]
    return {
        "sharpness": np.array([cv2.Laplacian(gray, cv2.CV_32F).var() for gray in grays]),
        "brightness": np.array([gray.mean() for gray in grays]),
        "contrast": np.array([gray.std() for gray in grays]),
        "movement": np.array(changes),
        "loudness": np.array([10 * np.log10(np.mean(np.square(piece)) + _EPS) for piece in pieces]),
        "centroid": np.array([_centroid(piece) for piece in pieces]),
        "zero crossings": np.array([np.mean(np.diff(np.signbit(piece))) for piece in pieces]),
    }


def leak_table(root: Path, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare the statistics of forged frames with those of others.

    Args:
        root: of a set in LAV-DF's layout.
        rows: its labels, with `original`, `visual_fake_segments` and `audio_fake_segments`.

    Returns:
        a row for each statistic: its `name`, `modality` ("visual" or "audio"), `frames` that are forged, and an area
        under the ROC curve for each of `COMPARISONS` (NaN where there is nothing to compare).

    Raises:
        ImageReadError: a clip cannot be read.
    """
    found = {name: _Samples() for name in (*PICTURE, *SOUND)}
    real: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        if row["original"] is None:
            continue
        if row["original"] not in real:  # the forgeries of one clip follow each other
            real = {row["original"]: frame_statistics(read_clip(root / row["original"]))}
        clip = read_clip(root / row["file"])
        forged = frame_statistics(clip)
        masks = {kind: _mask(row[f"{kind}_fake_segments"], clip) for kind in ("visual", "audio")}
        for name, samples in found.items():
            kind = "visual" if name in PICTURE else "audio"
            samples.add(
                forged[name], real[row["original"]][name], masks[kind], _touched(masks["visual"] | masks["audio"])
            )
    return [
        {"name": name, "modality": "visual" if name in PICTURE else "audio", **samples.areas()}
        for name, samples in found.items()
    ]


def leak_lines(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay a leak table out as lines of text."""
    lines = [f"{'statistic':<16}{'modality':<10}" + "".join(f"{name:>9}" for name in COMPARISONS)]
    for row in table:
        areas = "".join(f"{row[name]:9.3f}" for name in COMPARISONS)
        lines.append(f"{row['name']:<16}{row['modality']:<10}{areas}")
    return lines


class _Samples:
    """Values of one statistic, gathered clip by clip: for each comparison those that are forged, and the others."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {name: ([], []) for name in COMPARISONS}

    def add(self, forged: np.ndarray, real: np.ndarray, mask: np.ndarray, anywhere: np.ndarray) -> None:
        count = min(len(forged), len(real), len(mask))
        forged, real, mask, anywhere = forged[:count], real[:count], mask[:count], anywhere[:count]
        if mask.any():
            self._put("inside", forged[mask], forged[~mask])
            self._put("forged", forged[mask], real[mask])
        self._put("around", forged[~anywhere], real[~anywhere])

    def areas(self) -> dict[str, Any]:
        areas: dict[str, Any] = {"frames": int(sum(map(len, self.values["forged"][0])))}
        for name, (positive, negative) in self.values.items():
            scores = [np.concatenate(part) if part else np.zeros(0) for part in (positive, negative)]
            labels = np.repeat([1, 0], [len(part) for part in scores])
            areas[name] = float(roc_auc(labels, np.concatenate(scores))) if all(map(len, scores)) else float("nan")
        return areas

    def _put(self, name: str, positive: np.ndarray, negative: np.ndarray) -> None:
        self.values[name][0].append(positive)
        self.values[name][1].append(negative)


def _mask(segments: Sequence[Sequence[float]], clip: Clip) -> np.ndarray:
    """Which frames lie in segments (seconds): bool (t,)."""
    middles = (np.arange(len(clip.frames)) + 0.5) / clip.fps
    inside = np.zeros(len(middles), bool)
    for start, end in segments:
        inside |= (middles >= start) & (middles < end)
    return inside


def _touched(mask: np.ndarray) -> np.ndarray:
    """Forged frames, and those just behind them, whose movement is that from a forged frame."""
    return mask | np.append(False, mask[:-1])


def _centroid(piece: np.ndarray) -> float:
    power = np.square(np.abs(np.fft.rfft(piece * np.hanning(len(piece)))))
    return float((power * np.linspace(0, 1, len(power))).sum() / (power.sum() + _EPS))
