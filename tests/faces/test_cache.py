import json
import os

import numpy as np
import pytest
from PIL import Image

from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.io.image import read_image


class CountingFinder:
    def __init__(self, faces, **settings):
        self.faces, self.settings, self.calls = faces, {"finder": "counting", **settings}, 0

    def __call__(self, image):
        self.calls += 1
        return list(self.faces)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def same(one, two):
    assert [(face.box, face.score) for face in one] == [(face.box, face.score) for face in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.landmarks, b.landmarks)


def test_an_image_is_looked_at_once(tmp_path, image, synthetic_face):
    finder = CountingFinder([synthetic_face(width=100 / 3), synthetic_face(center=(7.1, 1e-7))])
    cached = CachedFaceFinder(finder, tmp_path / "cache")
    same(cached(image), finder.faces)
    same(cached(image.copy()), finder.faces)
    same(CachedFaceFinder(finder, tmp_path / "cache")(image), finder.faces)
    assert finder.calls == 1
    assert (cached.hits, cached.misses) == (1, 1)
    assert [path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".json"]


def test_without_a_folder_all_tools_share_one(tmp_path, image, monkeypatch):
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path))
    CachedFaceFinder(CountingFinder([]))(image)
    assert len(list((tmp_path / "faces").rglob("*.json"))) == 1


def test_a_file_that_is_replaced_is_looked_at_anew(tmp_path, image):
    """In place, with the same size and time of change: what counts is what is in it."""
    path, finder = tmp_path / "a.bmp", CountingFinder([])
    cached = CachedFaceFinder(finder, tmp_path / "cache")
    for pixels in (image, image[::-1], image):
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        os.utime(path, (10_000, 10_000))
        cached(read_image(path))
    assert (finder.calls, cached.hits) == (2, 1)


def test_no_face_is_remembered_too(tmp_path, image):
    finder = CountingFinder([])
    cached = CachedFaceFinder(finder, tmp_path)
    assert cached(image) == cached(image) == []
    assert finder.calls == 1


def test_other_pixels_shape_or_settings_are_looked_at_anew(tmp_path, image):
    finder = CountingFinder([])
    cached = CachedFaceFinder(finder, tmp_path)
    changed = image.copy()
    changed[3, 4, 1] ^= 1
    for pixels in (image, changed, image.reshape(8, 6, 3)):
        cached(pixels)
    assert finder.calls == 3
    CachedFaceFinder(CountingFinder([], min_score=0.5), tmp_path)
    other = CountingFinder([], min_score=0.5)
    CachedFaceFinder(other, tmp_path)(image)
    assert other.calls == 1


def test_views_and_copies_of_the_same_pixels_are_one(tmp_path, image):
    cached = CachedFaceFinder(CountingFinder([]), tmp_path)
    assert cached.path(image[:, ::-1]) == cached.path(np.ascontiguousarray(image[:, ::-1])) != cached.path(image)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'{"faces": [{"box": [0, 0, 1, 1], "score": 1, "landmarks": [[0, 0]]}]}',
        b'{"faces": [{"box": [0, 0, 1], "score": 1, "landmarks": []}]}',
        b'{"faces": 3}',
    ],
    ids=["empty", "no text", "cut off", "a list", "one landmark", "three sides", "a number"],
)
def test_a_damaged_file_is_made_again(tmp_path, image, synthetic_face, damage):
    finder = CountingFinder([synthetic_face()])
    cached = CachedFaceFinder(finder, tmp_path)
    cached(image)
    cached.path(image).write_bytes(damage)
    same(cached(image), finder.faces)
    assert finder.calls == 2
    assert len(json.loads(cached.path(image).read_text())["faces"]) == 1
    same(cached(image), finder.faces)
    assert finder.calls == 2


def test_nan_landmarks_are_damage(tmp_path, image, synthetic_face):
    finder = CountingFinder([synthetic_face()])
    cached = CachedFaceFinder(finder, tmp_path)
    cached(image)
    path = cached.path(image)
    rows = json.loads(path.read_text())
    rows["faces"][0]["landmarks"][5] = [float("nan"), 1.0]
    path.write_text(json.dumps(rows))
    same(cached(image), finder.faces)
    assert finder.calls == 2


def test_a_finder_that_fails_leaves_nothing_behind(tmp_path, image):
    class Failing(CountingFinder):
        def __call__(self, image):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        CachedFaceFinder(Failing([]), tmp_path)(image)
    assert not list(tmp_path.rglob("*.json*"))
