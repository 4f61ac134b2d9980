import numpy as np
import pytest

from ddl_d2.data.face_crop import LargestFace, crop_to_face, face_window, largest_box
from ddl_d2.data.forgery.faces import Face


@pytest.fixture
def picture():
    return np.arange(40 * 60 * 3, dtype=np.int64).reshape(40, 60, 3).astype(np.uint8)


def test_margin_and_mask(picture):
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    # 20 wide and 20 high, a quarter more on each side: 15..45 and 5..35.
    image, cut = crop_to_face(picture, mask, (20.0, 10.0, 40.0, 30.0), 0.25)
    np.testing.assert_array_equal(image, picture[5:35, 15:45])
    assert cut.sum() == 400
    assert cut[5:25, 5:25].all()


def test_clipped_to_the_picture():
    assert face_window((-5.0, -3.0, 10.4, 12.2), (40, 60), margins=(0.0,) * 4) == (0, 0, 10, 12)
    # 40 wide, 40 high: a half more is 20 on each side.
    assert face_window((50.0, 31.0, 90.0, 71.0), (40, 60), margins=(0.5,) * 4) == (30, 11, 60, 40)
    assert face_window((20.0, 10.0, 40.0, 20.0), (40, 60), margins=(0.1, 0.2, 0.3, 0.4)) == (18, 8, 46, 24)


@pytest.mark.parametrize("box", [(70.0, 5.0, 90.0, 20.0), (10.0, -30.0, 20.0, -20.0), (30.0, 30.0, 30.0, 30.0)])
def test_a_window_is_never_empty(picture, box):
    image, mask = crop_to_face(picture, np.ones((40, 60), bool), box, 0.0)
    assert min(image.shape) >= 1
    assert image.shape[:2] == mask.shape


def test_no_face_is_the_whole_picture(picture):
    image, mask = crop_to_face(picture, np.ones((40, 60), bool), None, 0.1)
    assert image.shape == picture.shape
    assert mask.shape == (40, 60)


def test_largest():
    assert largest_box([(0, 0, 3, 3), (5, 5, 9, 9), (10, 10, 14, 14)]) == (5, 5, 9, 9)
    assert largest_box([]) is None


class _Boxes:
    """A finder that always sees the same boxes."""

    settings = {"name": "test"}

    def __init__(self, *boxes) -> None:
        self.faces = [Face(box, None) for box in boxes]

    def __call__(self, image):
        return self.faces


def test_the_largest_face_is_cut_out_of_picture_and_mask():
    image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:30, 20:40] = True
    crop = LargestFace(_Boxes((0.0, 0.0, 5.0, 5.0), (20.0, 20.0, 40.0, 30.0)), margin=0.5)
    cut, cut_mask = crop(image, mask)
    assert np.array_equal(cut, image[15:35, 10:50])
    assert cut_mask.sum() == 200
    same, same_mask = LargestFace(_Boxes(), margin=0.5)(image, mask)
    assert np.array_equal(same, image)
    assert np.array_equal(same_mask, mask)
