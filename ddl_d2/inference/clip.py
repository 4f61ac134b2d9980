"""Predicting clips with a system that sees picture and sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.data.build import build_clip_mapper
from ddl_d2.data.clip_mapper import ClipMapper
from ddl_d2.inference.clip_prediction import ClipPrediction, Truth, forged_segments
from ddl_d2.inference.overlay import write_in_corner
from ddl_d2.inference.scene import sound_of_video, spectrum_columns
from ddl_d2.inference.timeline import Scene, Thumbnails
from ddl_d2.io.atomic import write_json
from ddl_d2.io.image import write_png
from ddl_d2.io.video import iter_video_frames
from ddl_d2.io.write_video import VideoWriter
from ddl_d2.predictions.verdict import plain_verdict
from ddl_d2.utils.precision import autocast
from ddl_d2.utils.text import printable

_RED, _GRAY, _GREEN = (170, 20, 45), (90, 90, 95), (20, 110, 50)


class ClipPredictor:
    """Predict clips the way the evaluation does.

    Args:
        model: a system that sees clips; put into eval mode.
        mapper: reads clips for it.
        precision: "float32", "bfloat16" or "float16".
    """

    def __init__(self, model: nn.Module, mapper: ClipMapper, *, precision: str = "float32") -> None:
        self.model, self.mapper, self.precision = model.eval(), mapper, precision

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> ClipPredictor:
        """Build the model of a config with INPUT.CLIP.ENABLED, and load MODEL.WEIGHTS into it.

        Raises:
            CheckpointError: MODEL.WEIGHTS is empty, unreadable, or does not fit the model.
            ConfigError, FaceFinderUnavailableError: as `build_clip_mapper`.
        """
        return cls(build_trained_model(cfg), build_clip_mapper(cfg, False), precision=cfg.TEST.PRECISION)

    @torch.no_grad()
    def __call__(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Predict a clip.

        Returns:
            what the model was shown (see `ClipMapper`), and its output.

        Raises:
            ImageReadError: not a readable clip.
        """
        row = self.mapper({"file_name": str(path), "image_id": path.name})
        device = next(self.model.parameters(), torch.empty(0)).device
        with autocast(device.type, self.precision):
            return row, dict(self.model([row])[0])


def predict_clip(path: Path, predictor: ClipPredictor, *, threshold: float = 0.5) -> ClipPrediction:
    """Score a clip, and find its forged seconds.

    Args:
        path: the clip.
        predictor: of clips.
        threshold: of the score, and of a segment's confidence.

    Raises:
        ImageReadError: not a readable clip.
    """
    row, output = predictor(path)
    segments = np.asarray(output["segments"], dtype=np.float64).reshape(-1, 3)
    scores = {name: np.asarray(_numpy(found), dtype=np.float64) for name, found in output["frame_scores"].items()}
    score, fps = float(output["fake_score"]), float(row["fps"])
    thumbnails = Thumbnails()
    for number in range(row["num_frames"]):
        thumbnails.add(number / fps, row["frames"][:, number].permute(1, 2, 0).contiguous().numpy())
    sound = spectrum_columns(row["audio"].numpy()) if row["has_audio"] else None
    return ClipPrediction(
        file=printable(path),
        score=score,
        verdict=plain_verdict(score, threshold).label,
        threshold=threshold,
        duration=float(row["duration"]),
        fps=fps,
        segments=segments,
        frame_scores=scores,
        forged=forged_segments(segments, scores, fps=fps, threshold=threshold),
        has_audio=bool(row["has_audio"]),
        scene=Scene(float(row["duration"]), tuple(thumbnails.kept), sound),
    )


def annotate_clip(
    path: Path,
    predictor: ClipPredictor,
    report: Path,
    *,
    video: Path | None = None,
    curve: Path | None = None,
    threshold: float = 0.5,
    truth: Truth | None = None,
    about: Mapping[str, Any] | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Predict a clip: its scores and segments as JSON, and if asked for a timeline, and an annotated mp4 with sound.

    Args:
        path: the clip.
        predictor: of clips.
        report: the JSON file.
        video: the annotated video: a red frame around forged seconds.
        curve: a PNG of the timeline.
        threshold: see `predict_clip`.
        truth: see `ClipPrediction.draw`.
        about: entries to put at the head of the report.
        on_frame: called after each frame of the annotated video.

    Returns:
        the report without the scores of frames and the segments that are not told.

    Raises:
        ImageReadError: not a readable clip.
    """
    result = predict_clip(path, predictor, threshold=threshold)
    content = {**(about or {}), **result.to_dict()}
    write_json(report, content | ({"truth": dict(truth)} if truth is not None else {}))
    if curve is not None:
        write_png(curve, result.draw(truth=truth))
    if video is not None:
        sound = sound_of_video(path, max_pixels=predictor.mapper.max_pixels) if result.has_audio else None
        with VideoWriter(video, audio=sound) as writer:
            first: float | None = None
            for _, seconds, image in iter_video_frames(path, max_pixels=predictor.mapper.max_pixels):
                first = seconds if first is None else first
                writer.write(draw_clip_frame(image, result, seconds - first), seconds)
                on_frame()
    return {name: value for name, value in content.items() if name not in ("segments", "frame_scores", "fps")}


def draw_clip_frame(image: np.ndarray, result: ClipPrediction, seconds: float) -> np.ndarray:
    """A frame (uint8 H×W×3 RGB) with the clip's score in its corner, and a red frame while something is forged."""
    drawn, text, color = image.copy(), f"{result.verdict.upper()} {result.score:.2f}", _GREEN
    if result.verdict == "fake":
        now = next((segment for segment in result.forged if segment.start <= seconds < segment.end), None)
        color = _GRAY if now is None else _RED
        if now is not None:
            height, width = drawn.shape[:2]
            border = max(2, round(min(height, width) / 40))
            cv2.rectangle(drawn, (0, 0), (width - 1, height - 1), _RED, 2 * border)
            text += f"  {now.where or 'forged'} {now.confidence:.2f}"
    write_in_corner(drawn, text, color)
    return drawn


def _numpy(values: Any) -> Any:
    return values.detach().float().cpu().numpy() if hasattr(values, "detach") else values
