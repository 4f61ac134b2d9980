"""From the scores of frames to the scores of their videos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

VIDEO_SCORES = ("mean", "top_frames", "max")
"""Rules for a video's score: the mean over its frames, the mean of the highest tenth (at least one), the highest."""

NO_FACE_SCORE = 0.5
"""The score of a video in none of whose frames a face was found."""


def video_score(scores: Sequence[float] | NDArray[np.floating], rule: str = "mean") -> float:
    """Score one video by its frames.

    Args:
        scores: of its frames, (F,) with F >= 1, in any order, each in [0, 1].
        rule: one of `VIDEO_SCORES`.

    Returns:
        A float in [0, 1] that does not depend on the frames' order, to the last bit.

    Raises:
        ValueError: an unknown rule, or no frames.
    """
    if rule not in VIDEO_SCORES:
        raise ValueError(f"the video score is one of {', '.join(VIDEO_SCORES)}, not {rule!r}")
    values = sorted((float(score) for score in scores), reverse=True)
    if not values:
        raise ValueError("a video without frames has no score")
    if rule == "max":
        return values[0]
    if rule == "top_frames":
        values = values[: max(1, len(values) // 10)]
    return math.fsum(values) / len(values)


def score_with_faces(scores: Sequence[float], has_face: Sequence[bool], rule: str = "mean") -> float:
    """Score a video by those of its frames in which a face was found; `NO_FACE_SCORE` if there is none.

    Args:
        scores: as of `video_score`.
        has_face: of each frame.
        rule: as of `video_score`.

    Raises:
        ValueError: as `video_score`.
    """
    if not len(scores):
        raise ValueError("a video without frames has no score")
    usable = [score for score, found in zip(scores, has_face, strict=True) if found]
    return video_score(usable, rule) if usable else NO_FACE_SCORE


def scores_of_videos(
    video_ids: Sequence[str],
    labels: Sequence[int] | NDArray[np.integer],
    scores: Sequence[float] | NDArray[np.floating],
    rule: str = "mean",
    *,
    has_face: Sequence[bool] | None = None,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Score videos by their frames.

    Args:
        video_ids: (N,) the video of each frame.
        labels: (N,) 0 real, 1 fake; the same for all frames of a video.
        scores: (N,) of the frames, in [0, 1].
        rule: see `video_score`.
        has_face: (N,) whether a face was found in the frame, see `score_with_faces`; None: frames count as they are.

    Returns:
        The ids of the V videos, sorted, with their labels and scores, (V,) each.

    Raises:
        ValueError: as `video_score`, and for a video whose frames have both labels, naming it.
    """
    frames: dict[str, list[tuple[float, bool]]] = {}
    label_of: dict[str, int] = {}
    found = [True] * len(scores) if has_face is None else has_face
    for video_id, label, score, face in zip(video_ids, labels, scores, found, strict=True):
        frames.setdefault(video_id, []).append((float(score), bool(face)))
        if label_of.setdefault(video_id, int(label)) != int(label):
            raise ValueError(f"video {video_id} has both real and fake frames")
    ids = sorted(frames)
    scored = [score_with_faces([s for s, _ in frames[v]], [face for _, face in frames[v]], rule) for v in ids]
    return (
        ids,
        np.array([label_of[video_id] for video_id in ids], dtype=np.int64),
        np.array(scored, dtype=np.float64),
    )
