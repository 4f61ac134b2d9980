"""Faces followed through a clip: which sightings are of one face, and when its score is above a threshold.

Legend: a box is (x0, y0, x1, y1) in pixels, x1 and y1 just outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    Attributes:
        frame: number of the frame.
        seconds: its time.
        box: where the face is.
        score: P(fake) of the face, 0..1.
    """

    frame: int
    seconds: float
    box: Box
    score: float


@dataclass
class FaceTrack:
    """One face through a clip.

    Attributes:
        number: from 1 on, in the order of appearance; it stays the same while the face is followed.
        sightings: in the order of time.
    """

    number: int
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def mean_score(self) -> float:
        """The mean of its scores."""
        return sum(one.score for one in self.sightings) / len(self.sightings)

    @property
    def highest(self) -> Sighting:
        """The sighting with the highest score, of several the first."""
        return max(self.sightings, key=lambda one: one.score)

    def segments(self, threshold: float, *, gap: float) -> list[tuple[float, float]]:
        """The times (first and last sighting, seconds) in which its score is above a threshold.

        Args:
            threshold: of the score.
            gap: two such sightings farther apart than this, in seconds, are of two segments.
        """
        found: list[tuple[float, float]] = []
        above = False
        for one in self.sightings:
            if one.score <= threshold:
                above = False
                continue
            if above and one.seconds - found[-1][1] <= gap:
                found[-1] = (found[-1][0], one.seconds)
            else:
                found.append((one.seconds, one.seconds))
            above = True
        return found


def follow_faces(
    frames: Iterable[tuple[int, float, Sequence[tuple[Box, float]]]], *, min_iou: float = 0.25, patience: float = 1.0
) -> list[FaceTrack]:
    """Tell which faces of a clip's frames are the same.

    Faces of a frame are given to those that were seen before so that their boxes overlap most in all; what overlaps
    too little, or was last seen too long ago, is a new face. Faces that cross may change places, and one that comes
    back after a while is a new one: who they are is not looked at.

    Args:
        frames: (number, seconds, (box, score) of each face), in the order of time.
        min_iou: the least intersection over union of the boxes of one face from frame to frame.
        patience: for so long, in seconds, a face may be out of sight.
    """
    tracks: list[FaceTrack] = []
    for number, seconds, faces in frames:
        current = [track for track in tracks if seconds - track.sightings[-1].seconds <= patience]
        given = dict(_matched([track.sightings[-1].box for track in current], [box for box, _ in faces], min_iou))
        for index, (box, score) in enumerate(faces):
            if index in given:
                track = current[given[index]]
            else:
                track = FaceTrack(len(tracks) + 1)
                tracks.append(track)
            track.sightings.append(Sighting(number, seconds, box, score))
    return tracks


def faces_of(output: Mapping[str, Any], height: int, width: int) -> list[tuple[Box, float]]:
    """The faces of a model's output, as `follow_faces` takes them.

    A model that looks at whole frames gives one "face", the frame; one of faces that found none gives none.
    """
    if not output.get("has_face", True):
        return []
    if "faces" in output:
        found = []
        for face in output["faces"]:
            x0, y0, x1, y1 = map(float, face["window"])
            found.append(((x0, y0, x1, y1), float(face["fake_score"])))
        return found
    return [((0.0, 0.0, float(width), float(height)), float(output["fake_score"]))]


def overlaps(first: Sequence[Box], second: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each of N boxes with each of M, N×M."""
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _matched(before: Sequence[Box], now: Sequence[Box], min_iou: float) -> Iterator[tuple[int, int]]:
    """(index now, index before) of boxes of one face."""
    iou = overlaps(before, now)
    # What overlaps too little counts as not at all, so that it is never preferred to a good pair.
    rows, columns = linear_sum_assignment(np.where(iou >= min_iou, iou, 0), maximize=True)
    for row, column in zip(rows, columns, strict=True):
        if iou[row, column] >= min_iou:
            yield int(column), int(row)
