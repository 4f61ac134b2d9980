"""Faces that another program has found."""

import json

import numpy as np
import pytest

from ddl_d2.errors import InputError
from ddl_d2.faces.listed import FaceList


@pytest.fixture
def listed(tmp_path):
    def make(content) -> FaceList:
        path = tmp_path / "faces.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return FaceList(path)

    return make


def test_images_with_their_faces(listed):
    points = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    faces = listed({"fake/a.jpg": [{"box": [50, 0, 60, 9]}, {"box": [1, 2, 3, 4], "landmarks": points, "score": 0.9}]})
    found = faces.faces("fake/a.jpg", "/data/train/fake/a.jpg")
    assert [face.box for face in found] == [(1.0, 2.0, 3.0, 4.0), (50.0, 0.0, 60.0, 9.0)]
    np.testing.assert_array_equal(found[0].landmarks, points)
    assert found[0].score == 0.9
    assert not faces.has_landmarks()
    assert faces.faces("fake/b.jpg", "/data/train/fake/b.jpg") == []


def test_crops_of_the_released_code(listed):
    """face_locations.json: a crop's name -> [top, bottom, left, right]."""
    content = {f"out/train/fake/a_b_{n:03d}.png": [10 * n, 10 * n + 5, 3, 9] for n in range(2)}
    faces = listed(content).faces("fake/a_b.jpg", "/data/train/fake/a_b.jpg")
    assert [face.box for face in faces] == [(3.0, 0.0, 9.0, 5.0), (3.0, 10.0, 9.0, 15.0)]


def test_real_and_fake_of_one_name_are_two_images(listed):
    faces = listed({"train/real/0_000.png": [0, 1, 0, 1], "train/fake/0_000.png": [0, 2, 0, 2]})
    assert faces.faces("real/0.png", "/data/train/real/0.png")[0].box == (0.0, 0.0, 1.0, 1.0)
    assert faces.faces("fake/0.png", "/data/train/fake/0.png")[0].box == (0.0, 0.0, 2.0, 2.0)
    assert faces.faces("0.png", "/data/real/0.png")[0].box == (0.0, 0.0, 1.0, 1.0)
    with pytest.raises(InputError, match="two images that may be 0.png: train/real/0 and train/fake/0"):
        faces.faces("0.png", "/data/0.png")


def test_splits_that_share_names(listed):
    faces = listed({f"crops/{split}/fake/0_000.png": [0, n, 0, n] for n, split in enumerate(("train", "valid"), 1)})
    assert faces.faces("fake/0.png", "/data/train/fake/0.png")[0].box == (0.0, 0.0, 1.0, 1.0)
    assert faces.faces("fake/0.png", "/data/valid/fake/0.png")[0].box == (0.0, 0.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not JSON", "cannot be read as JSON"),
        ([1, 2], "holds a list"),
        ({"a.png": [1, 2, 3]}, "'a.png'"),
        ({"a.png": [{"landmarks": []}]}, "'a.png'"),
        ({"a.png": [{"box": [3, 0, 1, 1]}]}, "x0 < x1"),
        ({"a.png": [{"box": [0, 0, 1, 1], "landmarks": [[1, 2]]}]}, "5 or 68"),
        ({"a.png": 3}, "'a.png'"),
    ],
)
def test_what_is_no_list_of_faces(listed, content, says):
    with pytest.raises(InputError, match=says):
        listed(content)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="none.json"):
        FaceList(tmp_path / "none.json")
