"""Faces followed through a clip, on boxes that are moved by hand."""

import numpy as np
import pytest

from ddl_d2.inference.face_tracks import FaceTrack, Sighting, faces_of, follow_faces, overlaps


def box(x, y=0, side=10):
    return (float(x), float(y), float(x + side), float(y + side))


def test_faces_keep_their_numbers_while_they_move_and_change_places_in_the_list():
    frames = [
        (0, 0.0, [(box(0), 0.1), (box(50), 0.9)]),
        (1, 0.2, [(box(52), 0.8), (box(2), 0.2)]),
        (2, 0.4, [(box(4), 0.3), (box(54), 0.7), (box(100), 0.5)]),
    ]
    tracks = follow_faces(frames)
    assert [(track.number, [one.score for one in track.sightings]) for track in tracks] == [
        (1, [0.1, 0.2, 0.3]),
        (2, [0.9, 0.8, 0.7]),
        (3, [0.5]),
    ]
    assert tracks[0].mean_score == pytest.approx(0.2)
    assert tracks[1].highest == Sighting(0, 0.0, box(50), 0.9)


def test_a_face_that_is_away_for_a_moment_is_the_same_and_for_long_another():
    frames = [(0, 0.0, [(box(0), 0.1)]), (1, 0.5, []), (2, 1.0, [(box(1), 0.2)]), (3, 2.5, [(box(1), 0.3)])]
    assert [len(track.sightings) for track in follow_faces(frames, patience=1.0)] == [2, 1]


def test_faces_are_given_to_those_that_overlap_most_in_all():
    # Alone, the face at 3 would take the first (.54), and the one at 0 would have nothing better than none.
    tracks = follow_faces([(0, 0.0, [(box(0), 0.1), (box(6), 0.2)]), (1, 0.2, [(box(3), 0.3), (box(0), 0.4)])])
    assert [[one.score for one in track.sightings] for track in tracks] == [[0.1, 0.4], [0.2, 0.3]]


def test_too_little_overlap_is_another_face():
    # 2 of 18 columns are shared: .11.
    assert len(follow_faces([(0, 0.0, [(box(0), 0.1)]), (1, 0.2, [(box(8), 0.1)])])) == 2


def test_segments_are_runs_above_the_threshold():
    scores = [0.1, 0.6, 0.7, 0.5, 0.9, 0.8, 0.2, 0.7]
    track = FaceTrack(1, [Sighting(n, n / 5, box(0), score) for n, score in enumerate(scores)])
    assert track.segments(0.5, gap=0.5) == [(0.2, 0.4), (0.8, 1.0), (1.4, 1.4)]
    # A face that was out of sight for longer than the gap begins anew.
    away = FaceTrack(1, [Sighting(0, 0.0, box(0), 0.9), Sighting(9, 1.8, box(0), 0.9)])
    assert away.segments(0.5, gap=0.5) == [(0.0, 0.0), (1.8, 1.8)]
    assert away.segments(0.95, gap=0.5) == []


def test_overlaps_equal_counted_pixels(rng):
    corners = rng.integers(0, 20, (2, 6, 2))
    sizes = rng.integers(1, 15, (2, 6, 2))
    first, second = np.concatenate([corners, corners + sizes], axis=2).astype(float)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            masks = np.zeros((2, 40, 40), bool)
            for mask, (x0, y0, x1, y1) in zip(masks, (a.astype(int), b.astype(int)), strict=True):
                mask[y0:y1, x0:x1] = True
            expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
            assert overlaps([a], [b])[0, 0] == pytest.approx(expected)
            assert overlaps(first, second)[i, j] == pytest.approx(expected)


def test_faces_of_outputs():
    assert faces_of({"fake_score": 0.3}, 20, 30) == [((0.0, 0.0, 30.0, 20.0), 0.3)]
    assert faces_of({"fake_score": 0.3, "has_face": False, "faces": []}, 20, 30) == []
    face = {"window": (1, 2, 5, 6), "fake_score": 0.4}
    assert faces_of({"fake_score": 0.4, "has_face": True, "faces": [face]}, 20, 30) == [((1.0, 2.0, 5.0, 6.0), 0.4)]
