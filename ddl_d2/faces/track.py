"""Following one face through the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddl_d2.faces.crop import Window
from ddl_d2.faces.face import NUM_LANDMARKS, Face, FaceFinder

_SMOOTHING = np.array([1, 2, 3, 2, 1], dtype=np.float64) / 9
FEWEST_FRAMES = 0.8
"""The share of the frames in which a face must be found for it to be followed."""


def track_face(frames: Sequence[np.ndarray], finder: FaceFinder) -> list[Face]:
    """Follow the largest face of the frames.

    In each frame it is the face nearest to where it was last. Frames in which it is not found take its place from
    those around them, and its landmarks are averaged over five frames, so that they do not tremble.

    Args:
        frames: uint8 H×W×3 RGB, of one size.
        finder: places landmarks.

    Returns:
        one face a frame; none at all if it is found in less than `FEWEST_FRAMES` of them.
    """
    found: list[Face | None] = []
    last: Face | None = None
    for frame in frames:
        face = _nearest(finder(frame), last)
        found.append(face)
        last = face or last
    known = [index for index, face in enumerate(found) if face is not None]
    faces = [face for face in found if face is not None]
    if len(known) < max(1, FEWEST_FRAMES * len(found)):
        return []
    positions = np.arange(len(found))
    points = np.stack([np.vstack([face.landmarks, np.reshape(face.box, (2, 2))]) for face in faces])
    flat = points.reshape(len(known), -1)
    steady = np.stack([_smooth(np.interp(positions, known, column)) for column in flat.T], axis=1)
    placed = steady.reshape(len(found), -1, 2)
    return [
        Face((float(p[-2, 0]), float(p[-2, 1]), float(p[-1, 0]), float(p[-1, 1])), p[:-2].copy(), faces[0].score)
        for p in placed
    ]


def clip_window(faces: Sequence[Face], shape: tuple[int, int], *, margin: float) -> Window:
    """Choose one square for all frames, around where a face is for most of the time.

    Args:
        faces: of some frames, at least one.
        shape: (height, width) of the frames.
        margin: on each side, as a share of the face's larger side.

    Returns:
        (x0, y0, x1, y1), inside the frame; smaller than asked for where the frame is.
    """
    boxes = np.array([_extent(face) for face in faces])
    x0, y0, x1, y1 = np.median(boxes, axis=0)
    side = round(min(max(x1 - x0, y1 - y0) * (1 + 2 * margin), *shape))
    left = round(min(max((x0 + x1 - side) / 2, 0), shape[1] - side))
    top = round(min(max((y0 + y1 - side) / 2, 0), shape[0] - side))
    return left, top, left + side, top + side


def _nearest(faces: Sequence[Face], last: Face | None) -> Face | None:
    """The face whose center is nearest to the last one's, and within its width of it; at first the largest."""
    usable = [face for face in faces if len(face.landmarks) == NUM_LANDMARKS]
    if last is None:
        return max(usable, key=lambda face: face.width, default=None)
    place = last.landmarks.mean(axis=0)
    near = [(float(np.linalg.norm(face.landmarks.mean(axis=0) - place)), face) for face in usable]
    distance, face = min(near, key=lambda pair: pair[0], default=(np.inf, None))
    return face if distance < last.width else None


def _smooth(values: np.ndarray) -> np.ndarray:
    half = len(_SMOOTHING) // 2
    return np.convolve(np.pad(values, half, mode="edge"), _SMOOTHING, mode="valid")


def _extent(face: Face) -> tuple[float, float, float, float]:
    """The box of a face with its landmarks."""
    x0, y0, x1, y1 = face.box
    if len(face.landmarks):
        (left, top), (right, bottom) = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
        return min(x0, left), min(y0, top), max(x1, right), max(y1, bottom)
    return face.box
