from typing import ClassVar

import numpy as np
import pytest

from ddl_d2.faces.crop import (
    FaceCropper,
    crop_around,
    cut,
    face_window,
    five_points,
    landmark_window,
    nose_box,
    nose_points,
)
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.io.image import read_image

# Eyes, tip of the nose, corners of the mouth: 20 wide (40..60), 24 high (40..64).
FIVE = np.array([(40, 40), (60, 40), (50, 50), (44, 64), (56, 64)], dtype=np.float64)


class Finder:
    """A finder that always sees the same faces, and counts how often it is asked."""

    settings: ClassVar = {"name": "test"}

    def __init__(self, *faces) -> None:
        self.faces = list(faces)
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return self.faces


def face(box, landmarks=FIVE) -> Face:
    return Face(box, landmarks)


def sixty_eight() -> np.ndarray:
    """68 landmarks whose five points are FIVE; all others lie at (50, 50)."""
    points = np.full((68, 2), 50.0)
    ring = np.array([(-3, 0), (-1, -2), (1, -2), (3, 0), (1, 2), (-1, 2)], dtype=np.float64)  # its mean is 0
    points[36:42], points[42:48] = FIVE[0] + ring, FIVE[1] + ring
    points[30], points[48], points[54] = FIVE[2:]
    return points


def make_image(height, width):
    return np.zeros((height, width, 3), np.uint8)


def test_box_and_margin():
    # 20 wide and 20 high, a quarter more on each side: 15..45 and 5..35.
    assert face_window((20.0, 10.0, 40.0, 30.0), (40, 60), margins=(0.25,) * 4) == (15, 5, 45, 35)
    cropper = FaceCropper(Finder(face((20.0, 10.0, 40.0, 30.0))), margin=0.25)
    assert cropper(make_image(40, 60))[0].window == (15, 5, 45, 35)


def test_clipped_to_the_image():
    assert face_window((-5.0, -3.0, 10.4, 12.2), (40, 60), margins=(0.0,) * 4) == (0, 0, 10, 12)
    # 40 wide, 40 high: a half more is 20 on each side.
    assert face_window((50.0, 31.0, 90.0, 71.0), (40, 60), margins=(0.5,) * 4) == (30, 11, 60, 40)
    assert face_window((20.0, 10.0, 40.0, 20.0), (40, 60), margins=(0.1, 0.2, 0.3, 0.4)) == (18, 8, 46, 24)


@pytest.mark.parametrize("box", [(70.0, 5.0, 90.0, 20.0), (10.0, -30.0, 20.0, -20.0), (30.0, 30.0, 30.0, 30.0)])
def test_a_window_is_never_empty(box):
    x0, y0, x1, y1 = face_window(box, (40, 60), margins=(0.0,) * 4)
    assert 0 <= x0 < x1 <= 60
    assert 0 <= y0 < y1 <= 40


def test_landmarks():
    # 1.5 · 24 = 36 beside, 1.5 · 20 = 30 above and below.
    assert landmark_window(FIVE, (200, 200)) == (40 - 36, 40 - 30, 60 + 36, 64 + 30)
    # 30 further left and up: x from 10 - 36 and y from 10 - 30 are outside.
    assert landmark_window(FIVE - 30, (200, 200)) == (0, 0, 30 + 36, 34 + 30)
    assert landmark_window(FIVE, (80, 90)) == (4, 10, 90, 80)


def test_landmarks_without_width_or_height():
    # A width of 0 counts as 1: 1.5 · 10 = 15 beside, 1.5 above and below (to even: 18.5 -> 18, 31.5 -> 32).
    upright = np.array([(30, 20), (30, 20), (30, 25), (30, 30), (30, 30)], dtype=np.float64)
    assert landmark_window(upright, (100, 100)) == (15, 18, 45, 32)
    assert landmark_window(upright[:, ::-1], (100, 100)) == (18, 15, 32, 45)
    # One point: 1.5 on all sides, 28.5 -> 28 and 31.5 -> 32; far outside, the nearest pixel.
    assert landmark_window(np.full((5, 2), 30.0), (100, 100)) == (28, 28, 32, 32)
    assert landmark_window(np.full((5, 2), 300.0), (100, 100)) == (99, 99, 100, 100)


def test_five_of_sixty_eight():
    np.testing.assert_allclose(five_points(sixty_eight()), FIVE)
    assert five_points(FIVE) is FIVE
    assert landmark_window(sixty_eight(), (200, 200)) == landmark_window(FIVE, (200, 200))


@pytest.mark.parametrize(
    ("box", "whole_above", "window"),
    [
        ((0, 0, 70, 100), 0.7, (0, 0, 70, 100)),  # 0.70 of the image is not more than 0.7
        ((0, 0, 71, 100), 0.7, (0, 0, 100, 100)),
        ((0, 0, 99, 100), 1.0, (0, 0, 99, 100)),
        ((0, 0, 30, 100), 0.25, (0, 0, 100, 100)),
    ],
)
def test_most_of_an_image_is_all_of_it(box, whole_above, window):
    there = face(box)
    found = FaceCropper(Finder(there), margin=0.0, whole_above=whole_above)(make_image(100, 100))
    assert found == [(window, there)]


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((40, 40, 60, 60), (25, 25, 75, 75)),  # 4 % widened to 25 %: 50 x 50 about (50, 50)
        ((0, 0, 20, 20), (0, 0, 50, 50)),  # in the corner it keeps its size
        ((45, 0, 55, 5), (15, 0, 85, 36)),  # 2 to 1: 70.7 x 35.4 about (50, 2.5)
        ((49, 0, 51, 90), (38, 0, 62, 100)),  # 1 to 45: as high as the image and 25 wide, about 50
        ((20, 20, 80, 80), (20, 20, 80, 80)),  # 36 % is enough
    ],
)
def test_a_small_window_is_widened(box, window):
    found = FaceCropper(Finder(face(box)), margin=0.0, smallest=0.25)(make_image(100, 100))[0].window
    assert found == pytest.approx(window, abs=2)
    x0, y0, x1, y1 = found
    assert (x1 - x0) * (y1 - y0) >= 0.25 * 100 * 100 - 100  # but for rounding
    assert FaceCropper(Finder(face(box)), margin=0.0)(make_image(100, 100))[0].window == box


def test_the_rule_counts_what_is_clipped():
    # By landmarks 92 · 84 = 7728 pixels, 0.7728 of 100 × 100, but 0.1932 of 200 × 200.
    cropper = FaceCropper(Finder(face((0, 0, 1, 1))), rule="landmarks")
    assert cropper(make_image(100, 100))[0].window == (0, 0, 100, 100)
    assert cropper(make_image(200, 200))[0].window == (4, 10, 96, 94)


@pytest.mark.parametrize("choice", ["all", "largest", "random"])
@pytest.mark.parametrize("rule", ["box", "landmarks"])
def test_no_face_is_the_whole_image(choice, rule):
    assert FaceCropper(Finder(), choice=choice, rule=rule)(make_image(33, 47)) == [((0, 0, 47, 33), None)]


def test_all_faces_in_their_order_and_each_window_once():
    left, middle, right = face((0, 0, 10, 10)), face((20, 0, 30, 10)), face((40, 0, 50, 10))
    near = face((20.2, 0, 30.2, 10))  # rounds to the middle one's window
    found = FaceCropper(Finder(left, middle, near, right), margin=0.0)(make_image(100, 100))
    assert [window for window, _ in found] == [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]
    assert [there for _, there in found] == [left, middle, right]


def test_the_largest_face():
    small, first, second = face((0, 0, 3, 3)), face((5, 5, 9, 9)), face((10, 10, 14, 14))
    found = FaceCropper(Finder(small, first, second), choice="largest", margin=0.0)(make_image(50, 50))
    assert found == [((5, 5, 9, 9), first)]


def test_a_face_at_random_is_a_matter_of_the_seed():
    faces = [face((10 * i, 0, 10 * i + 5, 5)) for i in range(4)]
    cropper = FaceCropper(Finder(*faces), choice="random", margin=0.0)

    def draws():
        np.random.seed(3)
        return [cropper(make_image(50, 50))[0].window[0] for _ in range(40)]

    assert draws() == draws()
    assert set(draws()) == {0, 10, 20, 30}


@pytest.mark.parametrize(
    "wrong",
    [
        {"choice": "smallest"},
        {"rule": "ellipse"},
        {"margin": -0.1},
        {"whole_above": 0},
        {"whole_above": 1.1},
        {"smallest": 0.8},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"smallest|ellipse|-0\.1|share 0 |share 1\.1|share 0\.8"):
        FaceCropper(Finder(), **wrong)


def test_nose():
    points = sixty_eight()
    points[27], points[35] = (48, 44), (53, 52)
    assert len(nose_points(points)) == 9
    # x from 48 to 53 and y from 44 to 52, and 5 pixels more.
    assert nose_box(nose_points(points), (200, 200)) == (43, 39, 58, 57)
    assert nose_box(nose_points(FIVE), (200, 200)) == (45, 45, 55, 55)
    assert nose_box(nose_points(FIVE), (52, 47)) == (45, 45, 47, 52)
    assert nose_box(nose_points(FIVE), (200, 45)) is None
    assert nose_box(nose_points(FIVE - 55), (200, 200)) is None  # -10..0


def test_crop_around_keeps_the_face_in_place():
    image = np.arange(100 * 100 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 100, 3)
    # By its landmarks: 20 wide, 24 high, a tenth more: 38..62 and 37.6 -> 38..66.4 -> 66.
    part, moved = crop_around(image, face((0, 0, 5, 5)), margins=(0.1,) * 4)
    np.testing.assert_array_equal(part, image[38:66, 38:62])
    np.testing.assert_allclose(moved.landmarks, FIVE - 38)
    assert part.flags["C_CONTIGUOUS"]
    assert cut(image[..., 0], (3, 4, 10, 20)).shape == (16, 7)


@pytest.mark.usefixtures("needs_dlib")
def test_real_faces(shared):
    """Two men at a table: each window holds its face's landmarks, from left to right."""
    image = read_image(shared / "data" / "multi_face_photos" / "dlib_2008_001322.jpg")
    found = FaceCropper(DlibFaceFinder(), rule="landmarks")(image)
    assert len(found) >= 2
    assert [there.box for _, there in found] == sorted(there.box for _, there in found)
    for (x0, y0, x1, y1), there in found:
        points = five_points(there.landmarks)
        assert (points > (x0, y0)).all()
        assert (points < (x1, y1)).all()
        assert (x1 - x0) * (y1 - y0) <= 0.7 * image.shape[0] * image.shape[1]
