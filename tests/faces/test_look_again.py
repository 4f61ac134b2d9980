from typing import ClassVar

import numpy as np

from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.faces.look_again import SecondLook


class _OnlyWide:
    """Finds a face, at a place of its own, in images wider than 100 pixels only."""

    settings: ClassVar = {"finder": "test"}

    def __call__(self, image):
        return [Face((40.0, 50.0, 80.0, 90.0), np.array([[41.0, 51.0]] * 5), 1.0)] if image.shape[1] > 100 else []


def test_what_the_second_look_finds_is_in_pixels_of_the_image():
    (face,) = SecondLook(_OnlyWide())(np.zeros((60, 90, 3), np.uint8))
    assert face.box == (10.0, 30.0, 50.0, 70.0)
    np.testing.assert_array_equal(face.landmarks, [[11.0, 31.0]] * 5)


def test_what_the_first_look_finds_stays():
    (face,) = SecondLook(_OnlyWide())(np.zeros((60, 120, 3), np.uint8))
    assert face.box == (40.0, 50.0, 80.0, 90.0)


def test_the_cache_tells_both_apart():
    assert SecondLook(_OnlyWide()).settings != _OnlyWide.settings


def test_a_face_that_fills_the_image(astronaut, astronaut_face):
    x0, y0, x1, y1 = (round(value) for value in astronaut_face.box)
    tight = np.ascontiguousarray(astronaut[y0 + 8 : y1 - 8, x0:x1])
    finder = DlibFaceFinder(landmarks=False, min_score=0.2)
    assert not finder(tight)
    (face,) = SecondLook(finder)(tight)
    assert face.landmarks.shape == (0, 2)
    assert np.abs(np.array(face.box) - [0, -8, x1 - x0, y1 - y0 - 8]).max() < 0.2 * (x1 - x0)
    assert (np.array(face.box) < 0).any()
