"""The timeline of a clip: its faces followed, their scores over time, when they are above the threshold, key frames.

What has been seen of each frame is kept in `frames.jsonl` as it goes, so that a second call goes on where the first
one ended.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddl_d2.errors import InputError
from ddl_d2.evaluation import functional
from ddl_d2.inference.face_tracks import FaceTrack, faces_of, follow_faces
from ddl_d2.inference.model import Model
from ddl_d2.inference.results_file import whole_lines
from ddl_d2.inference.summary import decide
from ddl_d2.io.atomic import write_whole
from ddl_d2.io.video import count_frames, iter_chosen_frames, spread_frames
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.utils.text import printable

FRAMES_NAME = "frames.jsonl"
"""What has been seen of each frame, a line each."""

CSV_COLUMNS = ("face", "frame", "seconds", "score", "x0", "y0", "x1", "y1")
"""The columns of the table of sightings."""

_DIGITS = 6
Frame = dict[str, Any]


def chosen_frames(path: Path, per_second: float, max_pixels: int) -> list[int]:
    """The numbers of the frames to look at: evenly spaced, about so many a second.

    Raises:
        ImageReadError: not a readable video.
    """
    total = count_frames(path, max_pixels=max_pixels)
    ((_, last, _),) = iter_chosen_frames(path, [total - 1], max_pixels=max_pixels)
    return spread_frames(total, max(1, round(last * per_second) + 1)).tolist()


def look_at_frames(
    path: Path,
    model: Model,
    folder: Path,
    *,
    per_second: float = 5.0,
    overwrite: bool = False,
    on_frame: Callable[[int, int], object] = lambda done, total: None,
) -> list[Frame]:
    """Look at the frames of a clip, but for those that an earlier call has looked at.

    Args:
        path: the clip.
        model: the model.
        folder: of `frames.jsonl`; made if it is missing.
        per_second: frames to look at.
        overwrite: forget what was seen of another clip, or by another model, instead of refusing.
        on_frame: called with the frames that are done and their number.

    Returns:
        of each frame its number `frame`, `seconds`, `score`, `has_face`, `size` (height, width) and `faces` (box and
        score of each).

    Raises:
        ImageReadError: not a readable video.
        InputError: the folder is of another clip, model or rate.
    """
    made_by = {**model.describe(), "clip_sha256": file_sha256(path), "per_second": per_second}
    limit = model.cfg.INPUT.MAX_PIXELS
    wanted = chosen_frames(path, per_second, limit)
    file = folder / FRAMES_NAME
    known = _known(file, made_by, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(json.dumps(row) + "\n" for row in ({"model": made_by}, *known.values())))
    with open(file, "a", encoding="utf-8") as out:
        for number, seconds, image in iter_chosen_frames(path, [n for n in wanted if n not in known], max_pixels=limit):
            known[number] = {"file": printable(path), **seen(model, number, seconds, image)}
            out.write(json.dumps(known[number]) + "\n")
            out.flush()
            on_frame(len(known), len(wanted))
    return [known[number] for number in wanted]


def seen(model: Model, number: int, seconds: float, image: np.ndarray) -> Frame:
    """What a model sees in a frame (uint8 H×W×3); see `look_at_frames`."""
    (output,) = model.outputs([image])
    height, width = image.shape[:2]
    return {
        "frame": number,
        "seconds": round(seconds, 4),
        "score": round(float(output["fake_score"]), _DIGITS),
        "has_face": bool(output.get("has_face", True)),
        "size": [height, width],
        "faces": [[*box, round(score, _DIGITS)] for box, score in faces_of(output, height, width)],
    }


def tracks_of(frames: list[Frame], per_second: float) -> list[FaceTrack]:
    """The faces of a clip, from what was seen of its frames."""
    sightings = (
        (frame["frame"], frame["seconds"], [(tuple(face[:4]), face[4]) for face in frame["faces"]]) for frame in frames
    )
    return follow_faces(sightings, patience=max(1.0, 2.5 / per_second))


def timeline(path: Path, model: Model, frames: list[Frame], *, per_second: float, threshold: float) -> dict[str, Any]:
    """What was found in a clip, as JSON values.

    Args:
        path: the clip.
        model: that looked at it.
        frames: of `look_at_frames`.
        per_second: frames that were looked at.
        threshold: the operating point, for the clip and for segments.
    """
    rule = model.cfg.TEST.VIDEO_SCORE
    has_face = [frame["has_face"] for frame in frames]
    score = functional.score_with_faces([frame["score"] for frame in frames], has_face, rule)
    tracks = tracks_of(frames, per_second)
    return {
        "file": printable(path),
        "sha256": file_sha256(path),
        "model": model.describe(),
        "per_second": per_second,
        "threshold": threshold,
        "video_score": rule,
        "score": round(score, _DIGITS),
        "verdict": decide(score, threshold, has_face=any(has_face)).label,
        "frames": len(frames),
        "without_face": has_face.count(False),
        "seconds": frames[-1]["seconds"],
        "faces": [_face(track, threshold, per_second) for track in tracks],
    }


def sightings_csv(tracks: list[FaceTrack]) -> str:
    """All sightings as CSV, see `CSV_COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows((t.number, s.frame, s.seconds, s.score, *s.box) for t in tracks for s in t.sightings)
    return text.getvalue()


def key_frames(
    path: Path, tracks: list[FaceTrack], max_pixels: int, *, limit: int = 12
) -> Iterator[tuple[FaceTrack, np.ndarray]]:
    """The frame in which each face scores highest (uint8 H×W×3), of the faces with the highest scores."""
    chosen = sorted(tracks, key=lambda track: -track.highest.score)[:limit]
    numbers = sorted({track.highest.frame for track in chosen})
    images = {number: image for number, _, image in iter_chosen_frames(path, numbers, max_pixels=max_pixels)}
    for track in chosen:
        yield track, images[track.highest.frame]


def _face(track: FaceTrack, threshold: float, per_second: float) -> dict[str, Any]:
    best = track.highest
    segments = track.segments(threshold, gap=2.5 / per_second)
    return {
        "face": track.number,
        "from": track.sightings[0].seconds,
        "to": track.sightings[-1].seconds,
        "sightings": len(track.sightings),
        "mean_score": round(track.mean_score, _DIGITS),
        "highest": {
            "frame": best.frame,
            "seconds": best.seconds,
            "score": best.score,
            "box": list(best.box),
        },
        "segments": [list(segment) for segment in segments],
    }


def _known(file: Path, made_by: Mapping[str, Any], overwrite: bool) -> dict[int, Frame]:
    """What an earlier call has seen, by the number of the frame."""
    lines = list(whole_lines(file)) if os.path.exists(file) else []
    if lines and lines[0].get("model") != made_by:
        if not overwrite:
            raise InputError(
                f"{file}: is of another clip, model, threshold or rate; choose another folder, or replace it with "
                "--overwrite"
            )
        lines = []
    return {row["frame"]: row for row in lines[1:]}
