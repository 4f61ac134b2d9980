"""Predicting a video frame by frame: scores to JSON and a curve, annotated frames to an mp4.

Memory does not grow with the length of a video but for 16 bytes a frame: its time and its score.
"""

from __future__ import annotations

import contextlib
import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.evaluation import functional
from ddl_d2.inference.overlay import tint_forged, write_in_corner
from ddl_d2.inference.scene import sound_of_video, spectrum_columns
from ddl_d2.inference.summary import PredictionSummary, decide, forgery_map_of, summarize
from ddl_d2.inference.timeline import Bars, Scene, Thumbnails, draw_timeline, runs_above
from ddl_d2.io.atomic import replacing
from ddl_d2.io.clip import AUDIO_RATE
from ddl_d2.io.image import write_png
from ddl_d2.io.video import count_frames, iter_chosen_frames, iter_video_frames, spread_frames
from ddl_d2.io.write_video import VideoWriter
from ddl_d2.predictions.verdict import NO_FACE, says_forged
from ddl_d2.utils.limits import MAX_PIXELS
from ddl_d2.utils.text import printable

Predictor = Callable[[np.ndarray], Mapping[str, Any]]


@dataclass(frozen=True)
class VideoPrediction:
    """The result for one video; its verdict is by the threshold, as calibrations are of single images.

    Attributes:
        file: the video.
        score: P(fake) of the video, from its frames' scores by `video_score`, 0..1.
        verdict: "fake" if the score is above the threshold, else "real"; "no face found" if `without_face` is all.
        threshold: of the score.
        video_score: "mean", "top_frames" or "max", see `evaluation.functional.video_score`.
        frames: (number of the frame, seconds, P(fake)) of each frame that was predicted, in order.
        without_face: numbers of those in which no face was found, where images are cropped to faces
            (INPUT.FACE_CROP). They are left out of the score; if there are no others, it is 0.5.
        scene: what its drawing shows besides.
    """

    file: str
    score: float
    verdict: str
    threshold: float
    video_score: str
    frames: tuple[tuple[int, float, float], ...]
    without_face: tuple[int, ...] = ()
    scene: Scene = field(default_factory=Scene)

    @property
    def note(self) -> str:
        """What to know about the score besides; "" for nothing."""
        return _face_note(len(self.without_face), len(self.frames))

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; `"face": false` marks frames without one, and `note` is there if it is not ""."""
        hidden = ("without_face", "scene")
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in hidden}
        faceless = set(self.without_face)
        values["frames"] = [
            {"frame": number, "seconds": round(seconds, 3), "score": round(score, 6)}
            | _face_mark(number not in faceless)
            for number, seconds, score in self.frames
        ]
        values["reason"] = decide(self.score, self.threshold, has_face=self.verdict != NO_FACE).reason
        return values | ({"note": self.note} if self.note else {})

    def draw(self) -> np.ndarray:
        """The scores over time, with small frames and the sound if they are there: uint8 H×1000×3 RGB."""
        numbers, seconds, scores = zip(*self.frames, strict=True)
        has_face = [number not in set(self.without_face) for number in numbers]
        title = _title(self.verdict, self.score, self.video_score, sum(has_face), Path(self.file).name)
        return _draw(seconds, _with_gaps(scores, has_face), self.threshold, title, self.scene)


def predict_video(
    path: Path,
    predictor: Predictor,
    *,
    frames: int = 32,
    video_score: str = "mean",
    threshold: float = 0.5,
    max_pixels: int = MAX_PIXELS,
) -> VideoPrediction:
    """Score a video by evenly spaced frames, without those in which no face was found to be predicted.

    Args:
        path: the video.
        predictor: uint8 H×W×3 RGB -> the model's output.
        frames: how many; 0 = all.
        video_score: see `VideoPrediction`.
        threshold: a score above it is a fake.
        max_pixels: the most pixels a frame may have.

    Raises:
        ImageReadError: not a readable video.
    """
    found, has_face, thumbnails = [], [], Thumbnails()
    for number, seconds, image in _frames(path, frames, max_pixels):
        output = predictor(image)
        found.append((number, seconds, float(output["fake_score"])))
        has_face.append(bool(output.get("has_face", True)))
        thumbnails.add(seconds, image)
    score = functional.score_with_faces([frame[2] for frame in found], has_face, video_score)
    return VideoPrediction(
        file=printable(path),
        score=score,
        verdict=decide(score, threshold, has_face=any(has_face)).label,
        threshold=threshold,
        video_score=video_score,
        frames=tuple(found),
        without_face=tuple(frame[0] for frame, there in zip(found, has_face, strict=True) if not there),
        scene=_scene(thumbnails, sound_of_video(path, max_pixels=max_pixels)),
    )


def draw_frame(image: np.ndarray, prediction: Mapping[str, Any], summary: PredictionSummary) -> np.ndarray:
    """A frame (uint8 H×W×3 RGB) with its forged pixels tinted and its score in the corner; the same size."""
    faceless = summary.verdict == NO_FACE
    drawn = image.copy() if faceless else tint_forged(image, forgery_map_of(prediction) > summary.map_threshold)
    text = summary.verdict.upper() + ("" if faceless else f" {summary.score:.2f}")
    color = (170, 20, 45) if says_forged(summary.verdict) else (90, 90, 95) if faceless else (20, 110, 50)
    write_in_corner(drawn, text, color)
    return drawn


def annotate_video(
    path: Path,
    predictor: Predictor,
    report: Path,
    *,
    video: Path | None = None,
    curve: Path | None = None,
    frames: int = 0,
    video_score: str = "mean",
    threshold: float = 0.5,
    map_threshold: float = 0.5,
    max_pixels: int = MAX_PIXELS,
    about: Mapping[str, Any] | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Predict a video: the scores of its frames as JSON, and if asked for as a curve, and an annotated mp4.

    One frame is held at a time; only its score and its time are kept. Each file is written whole or not at all, and
    no folder is left behind where nothing was written.

    Args:
        path: the video.
        predictor: uint8 H×W×3 RGB -> the model's output.
        report: the JSON file.
        video: the annotated video, with its sound.
        curve: a PNG of the score over time.
        frames: evenly spaced frames to predict; 0 = all.
        video_score: "mean", "top_frames" or "max" of the frames' scores (`evaluation.functional.video_score`).
        threshold: a score above it is a fake.
        map_threshold: a pixel is forged where its map is above it.
        max_pixels: the most pixels a frame may have.
        about: entries to put at the head of the report.
        on_frame: called after each frame.

    Returns:
        the report without its list of frames.

    Raises:
        ImageReadError: not a readable video.
    """
    with _folder_for(report), replacing(report) as temporary:
        with open(temporary, "w", encoding="utf-8") as lines:
            lines.write('{"frames": [')
            sound = sound_of_video(path, max_pixels=max_pixels) if video is not None or curve is not None else None
            with VideoWriter(video, audio=sound) if video is not None else contextlib.nullcontext() as writer:
                times, scores, has_face, thumbnails = array("d"), array("d"), array("b"), Thumbnails()
                for index, seconds, image in _frames(path, frames, max_pixels):
                    prediction = predictor(image)
                    summary = summarize(prediction, threshold, map_threshold)
                    if writer is not None:
                        writer.write(draw_frame(image, prediction, summary), seconds)
                    has_face.append(bool(prediction.get("has_face", True)))
                    line = _line(index, seconds, summary) | _face_mark(bool(has_face[-1]))
                    lines.write((",\n" if scores else "\n") + json.dumps(line))
                    times.append(seconds)
                    scores.append(summary.score)
                    thumbnails.add(seconds, image)
                    on_frame()
            score = functional.score_with_faces(scores, list(map(bool, has_face)), video_score)
            head = {**(about or {}), "file": printable(path), "score": round(score, 6), "video_score": video_score}
            verdict = decide(score, threshold, has_face=any(has_face))
            head |= {
                "highest_score": round(max(scores), 6),
                "verdict": verdict.label,
                "reason": verdict.reason,
                "threshold": threshold,
                "map_threshold": map_threshold,
                "frame_count": len(scores),
            }
            if note := _face_note(len(scores) - sum(has_face), len(scores)):
                head["note"] = note
            lines.write("\n],\n" + json.dumps(head, indent=2)[1:].lstrip("\n"))
        if curve is not None:
            title = _title(head["verdict"], score, video_score, sum(has_face), printable(path.name))
            write_png(curve, _draw(times, _with_gaps(scores, has_face), threshold, title, _scene(thumbnails, sound)))
    return head


def _scene(thumbnails: Thumbnails, sound: np.ndarray | None) -> Scene:
    """What a drawing shows besides the scores."""
    last = thumbnails.kept[-1][0] if thumbnails.kept else 0.0
    if sound is None or not len(sound):
        return Scene(0.0, tuple(thumbnails.kept))
    duration = max(last, len(sound) / AUDIO_RATE)
    sound = np.pad(sound, (0, max(0, round(duration * AUDIO_RATE) - len(sound))))
    return Scene(duration, tuple(thumbnails.kept), spectrum_columns(sound))


def _draw(seconds: Sequence[float], scores: Sequence[float], threshold: float, title: str, scene: Scene) -> np.ndarray:
    """The timeline of a video's frames; where they are shown, also when they score above the threshold."""
    bars = [Bars("forged", runs_above(seconds, scores, threshold))] if scene.thumbnails else []
    return draw_timeline(seconds, scores, threshold, title=title, scene=scene, bars=bars)


def _title(verdict: str, score: float, video_score: str, used: int, name: str) -> str:
    """What stands above a curve; `used` frames had a face."""
    said = f"score {score:.3f} ({video_score} of {used} frames)" if used else "in any frame, so there is no score"
    return f"{verdict.upper()}   {said}   {name}"


def _with_gaps(scores: Sequence[float], has_face: Sequence[int]) -> list[float]:
    """The scores with NaN where no face was found: those count for nothing."""
    return [score if found else math.nan for score, found in zip(scores, has_face, strict=True)]


def _face_mark(has_face: bool) -> dict[str, bool]:
    """What marks a frame without a face in a report; nothing for others."""
    return {} if has_face else {"face": False}


def _face_note(missing: int, total: int) -> str:
    """What to know about a video's score if no face was found in some of its frames."""
    if not missing:
        return ""
    if missing == total:
        return f"no face was found in any of the {total} frames: the score {functional.NO_FACE_SCORE} says nothing"
    return f"no face was found in {missing} of the {total} frames, which are left out of the score"


def _line(index: int, seconds: float, summary: PredictionSummary) -> dict[str, Any]:
    return {
        "frame": index,
        "seconds": round(seconds, 3),
        "score": round(summary.score, 6),
        "forged_share": round(summary.forged_share, 6),
    }


def _frames(path: Path, count: int, max_pixels: int) -> Iterator[tuple[int, float, np.ndarray]]:
    """All frames of a video, or `count` evenly spaced ones."""
    if not count:
        return iter_video_frames(path, max_pixels=max_pixels)
    chosen = spread_frames(count_frames(path, max_pixels=max_pixels), count)
    return iter_chosen_frames(path, chosen.tolist(), max_pixels=max_pixels)


@contextlib.contextmanager
def _folder_for(file: Path) -> Iterator[None]:
    """Make the folders on the way to a file; take those that were missing away again if the block fails."""
    missing = [folder for folder in file.parents if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # something is in it after all
                folder.rmdir()
        raise
