"""What a system that sees picture and sound says of a clip: which seconds of either are forged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.inference.timeline import TRUTH, Bars, Scene, draw_clip_timeline

NAMES = {"video": "picture", "audio": "sound"}
"""What a system calls a modality -> what people are told."""
NO_SOUND = "the clip has no sound: only its picture was judged"
_TOLD = 5  # segments that are told in words
_SHOWN = 0.05  # proposals less sure than this are not drawn

Truth = Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True)
class ForgedSegment:
    """Seconds of a clip that are called forged.

    Attributes:
        start: seconds from the first frame.
        end: likewise.
        confidence: 0..1.
        where: "picture", "sound" or "picture and sound": whose frames score above the threshold on average; "" if
            neither's do.
    """

    start: float
    end: float
    confidence: float
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.start:.2f}-{self.end:.2f} s{place}"


@dataclass(frozen=True)
class ClipPrediction:
    """The result for one clip.

    Attributes:
        file: the clip.
        score: P(fake), 0..1.
        verdict: "fake" if the score is above the threshold, else "real".
        threshold: of the score and of the segments.
        duration: seconds.
        fps: frames a second of `frame_scores`.
        segments: float K×3, [confidence, start, end] in seconds, all that were proposed, the surest first.
        frame_scores: "video" and, where there is sound, "audio": float (t,) in [0, 1].
        forged: those of `segments` that are above the threshold and overlap no surer one, in order of time.
        has_audio: whether the clip has sound.
        scene: what its drawing shows besides.
    """

    file: str
    score: float
    verdict: str
    threshold: float
    duration: float
    fps: float
    segments: np.ndarray
    frame_scores: Mapping[str, np.ndarray]
    forged: tuple[ForgedSegment, ...]
    has_audio: bool = True
    scene: Scene = field(default_factory=Scene)

    @property
    def words(self) -> str:
        """Say which seconds are forged, in one line; "" for a clip that is called real."""
        if self.verdict != "fake":
            return ""
        told = ", ".join(map(str, self.forged[:_TOLD])) or "no segment above the threshold"
        more = len(self.forged) - _TOLD
        return f"forged: {told}" + (f" and {more} more" if more > 0 else "")

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        forged = [
            {"start": s.start, "end": s.end, "confidence": s.confidence, "where": s.where} for s in self.forged
        ]  # fmt: skip
        row: dict[str, Any] = {
            "file": self.file,
            "score": round(self.score, 6),
            "verdict": self.verdict,
            "threshold": self.threshold,
            "duration": round(self.duration, 3),
            "words": self.words,
            "forged": forged,
            "segments": [[round(float(v), 4) for v in segment] for segment in self.segments],
            "fps": self.fps,
            "frame_scores": {name: [round(float(v), 4) for v in found] for name, found in self.frame_scores.items()},
        }
        return row | ({} if self.has_audio else {"note": NO_SOUND})

    def draw(self, *, truth: Truth | None = None) -> np.ndarray:
        """Draw the result over time: uint8 H×1000×3 RGB.

        Args:
            truth: what is known to be forged, [start, end] in seconds, by modality ("video", "audio").
        """
        title = f"{self.verdict.upper()}   score {self.score:.3f}   {Path(self.file).name}"
        bars = [Bars("forged", self.segments[self.segments[:, 0] > _SHOWN])]
        for name, known in (truth or {}).items():
            segments = np.array([[1.0, *segment] for segment in known]).reshape(-1, 3)
            bars.append(Bars(f"true\n{NAMES.get(name, name)}", segments, TRUTH))
        curves = {
            NAMES.get(name, name): ((np.arange(len(found)) + 0.5) / self.fps, found)
            for name, found in self.frame_scores.items()
        }
        return draw_clip_timeline(curves, self.threshold, title=title, scene=self.scene, bars=bars)


def forged_segments(
    segments: np.ndarray, frame_scores: Mapping[str, np.ndarray], *, fps: float, threshold: float
) -> tuple[ForgedSegment, ...]:
    """Choose the segments that are told: above the threshold, and overlapping no surer one.

    Args:
        segments: float K×3, [confidence, start, end] in seconds, the surest first.
        frame_scores: see `ClipPrediction`.
        fps: frames a second of these.
        threshold: of the confidence, and of a modality's mean score in a segment.

    Returns:
        them in order of time.
    """
    chosen: list[ForgedSegment] = []
    for confidence, start, end in segments:
        if confidence <= threshold or any(start < other.end and end > other.start for other in chosen):
            continue
        first, last = int(start * fps), max(int(np.ceil(end * fps)), int(start * fps) + 1)
        parts = {NAMES.get(name, name): found[first:last] for name, found in frame_scores.items()}
        where = " and ".join(name for name, part in parts.items() if len(part) and part.mean() > threshold)
        chosen.append(ForgedSegment(round(float(start), 3), round(float(end), 3), round(float(confidence), 4), where))
    return tuple(sorted(chosen, key=lambda segment: segment.start))
