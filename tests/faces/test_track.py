"""Following a face through a clip."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.faces.face import Face
from ddl_d2.faces.track import clip_window, track_face
from tests.conftest import synthetic_face

FRAME = np.zeros((200, 300, 3), np.uint8)


def finder_of(faces_by_frame):
    """A finder that gives the faces of one frame after the other."""
    remaining = iter(faces_by_frame)
    return lambda image: next(remaining)


def centers(faces):
    return np.array([face.landmarks.mean(axis=0) for face in faces])


def test_a_face_is_followed_past_a_larger_one_that_comes_in():
    mine = [synthetic_face(center=(80.0 + k, 100.0), width=60.0) for k in range(10)]
    other = synthetic_face(center=(220.0, 100.0), width=90.0)
    found = track_face([FRAME] * 10, finder_of([[mine[k], *([other] if k > 3 else [])] for k in range(10)]))
    assert centers(found)[:, 0] == pytest.approx(centers(mine)[:, 0], abs=1.0)


def test_frames_without_the_face_take_its_place_from_their_neighbors():
    faces = [synthetic_face(center=(80.0 + 2 * k, 100.0), width=60.0) for k in range(12)]
    found = track_face([FRAME] * 12, finder_of([[] if k in (5, 6) else [face] for k, face in enumerate(faces)]))
    assert len(found) == 12
    assert centers(found)[5:7] == pytest.approx(centers(faces)[5:7], abs=0.01)


def test_landmarks_that_tremble_are_steadied():
    rng = np.random.default_rng(0)
    still = synthetic_face(center=(100.0, 100.0), width=60.0)
    faces = [Face(still.box, still.landmarks + rng.normal(0, 2, still.landmarks.shape)) for _ in range(40)]
    found = track_face([FRAME] * 40, finder_of([[face] for face in faces]))
    moved = np.array([face.landmarks - still.landmarks for face in found])[2:-2]
    # Weights 1 2 3 2 1 of 9: the deviation of the mean of independent errors is sqrt(19) / 9 of one.
    assert moved.std() == pytest.approx(2 * np.sqrt(19) / 9, rel=0.1)


def test_a_face_that_is_mostly_missing_is_not_followed():
    face = synthetic_face(center=(100.0, 100.0), width=60.0)
    assert track_face([FRAME] * 10, finder_of([[face]] * 7 + [[]] * 3)) == []
    assert len(track_face([FRAME] * 10, finder_of([[face]] * 8 + [[]] * 2))) == 10
    assert track_face([FRAME] * 3, finder_of([[]] * 3)) == []


def test_one_square_for_the_clip():
    box = Face((100.0, 60.0, 160.0, 120.0), np.zeros((0, 2)))
    assert clip_window([box] * 3, (200, 300), margin=0.25) == (85, 45, 175, 135)
    # Larger than the frame is high: as high as it is, and inside.
    assert clip_window([box], (200, 300), margin=2.0) == (30, 0, 230, 200)
    near_edge = Face((0.0, 0.0, 60.0, 60.0), np.zeros((0, 2)))
    assert clip_window([near_edge], (200, 300), margin=0.5) == (0, 0, 120, 120)
