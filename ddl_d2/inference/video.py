"""Predicting a video frame by frame, in constant memory: scores to JSON, annotated frames to an mp4."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from ddl_d2.data.image_io import iter_video_frames
from ddl_d2.inference.overlay import tint_forged
from ddl_d2.inference.summary import PredictionSummary, forgery_map_of, summarise

Predictor = Callable[[np.ndarray], Mapping[str, Any]]
_TIME_BASE = Fraction(1, 1000)
_ENCODERS = ("libx264", "mpeg4")


class VideoWriter:
    """Write RGB frames as an mp4 (H.264, or MPEG-4 where the encoder is missing). A context manager.

    The file appears under its name when the block ends well, and not at all when it does not.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container: Any = None
        self._stream: Any = None
        self._start, self._last = 0.0, -1

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Append a frame (uint8 H×W×3 RGB) shown at `seconds`; later frames take the size of the first."""
        if self._container is None:
            self._open(frame.shape[1], frame.shape[0], seconds)
        width, height = self._stream.width, self._stream.height
        if frame.shape[:2] != (height, width):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._last = max(self._last + 1, round((seconds - self._start) / _TIME_BASE))
        picture.pts, picture.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(picture))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._container is not None:
                if kind is None:
                    self._container.mux(self._stream.encode())
                self._container.close()
                if kind is None:
                    os.replace(self._temporary, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()

    def _open(self, width: int, height: int, seconds: float) -> None:
        encoder = next(name for name in _ENCODERS if name in av.codecs_available)
        self._container = av.open(str(self._temporary), "w", format="mp4")
        self._stream = self._container.add_stream(encoder, rate=25)
        self._stream.width, self._stream.height = max(2, width - width % 2), max(2, height - height % 2)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        self._start = seconds


def draw_frame(image: np.ndarray, prediction: Mapping[str, Any], summary: PredictionSummary) -> np.ndarray:
    """A frame (uint8 H×W×3 RGB) with its forged pixels tinted and its score in the corner; the same size."""
    drawn = tint_forged(image, forgery_map_of(prediction) > summary.map_threshold)
    scale = max(0.35, min(image.shape[:2]) / 700)
    text = f"{summary.verdict.upper()} {summary.score:.2f}"
    thickness = max(1, round(2 * scale))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(2, round(6 * scale))
    colour = (170, 20, 45) if summary.verdict == "fake" else (20, 110, 50)
    cv2.rectangle(drawn, (0, 0), (width + 2 * pad, height + base + 2 * pad), colour, -1)
    cv2.putText(
        drawn, text, (pad, pad + height), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA
    )
    return drawn


def predict_frames(
    path: Path, predictor: Predictor, *, threshold: float, map_threshold: float, max_pixels: int
) -> Iterator[tuple[int, float, np.ndarray, PredictionSummary]]:
    """Predict every frame of a video, one at a time.

    Yields:
        (index, seconds, the annotated frame, its summary).

    Raises:
        ImageReadError: not a readable video (after the frames before the damage).
    """
    for index, seconds, image in iter_video_frames(path, max_pixels=max_pixels):
        prediction = predictor(image)
        summary = summarise(prediction, threshold, map_threshold)
        yield index, seconds, draw_frame(image, prediction, summary), summary


def annotate_video(
    path: Path,
    predictor: Predictor,
    video: Path,
    report: Path,
    *,
    threshold: float = 0.5,
    map_threshold: float = 0.5,
    max_pixels: int = 64_000_000,
    about: Mapping[str, Any] | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Predict a video into an annotated mp4 (without its sound) and a JSON file with the scores of every frame.

    The video's score is the mean over its frames. Both files are written whole or not at all.

    Args:
        path: the video.
        predictor: uint8 H×W×3 RGB -> the model's output.
        video, report: the files to write.
        about: entries to put at the head of the report.
        on_frame: called after each frame.

    Returns:
        the report without its list of frames.

    Raises:
        ImageReadError: not a readable video.
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    temporary = report.with_name(f".{report.name}.{os.getpid()}.tmp")
    total, highest, count = 0.0, 0.0, 0
    frames = predict_frames(path, predictor, threshold=threshold, map_threshold=map_threshold, max_pixels=max_pixels)
    try:
        with VideoWriter(video) as writer, open(temporary, "w", encoding="utf-8") as lines:
            lines.write('{"frames": [')
            for index, seconds, drawn, summary in frames:
                writer.write(drawn, seconds)
                row = {
                    "frame": index,
                    "seconds": round(seconds, 3),
                    "score": round(summary.score, 6),
                    "forged_share": round(summary.forged_share, 6),
                }
                lines.write((",\n" if count else "\n") + json.dumps(row))
                total, highest, count = total + summary.score, max(highest, summary.score), count + 1
                on_frame()
            head = {
                **(about or {}),
                "file": str(path),
                "score": round(total / count, 6),
                "highest_score": round(highest, 6),
                "verdict": "fake" if total / count > threshold else "real",
                "threshold": threshold,
                "map_threshold": map_threshold,
                "frame_count": count,
            }
            lines.write("\n],\n" + json.dumps(head, indent=2)[1:].lstrip("\n"))
        os.replace(temporary, report)
    finally:
        temporary.unlink(missing_ok=True)
    return head
