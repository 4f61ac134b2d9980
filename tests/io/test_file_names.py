from pathlib import Path

import pytest

from ddl_d2.io.file_names import is_image, is_video, says_nothing


@pytest.mark.parametrize("name", ["a.jpg", "a/b.JPEG", "a.b.png", Path("a.tif"), ".hidden/a.webp"], ids=str)
def test_images(name):
    assert is_image(name)
    assert not is_video(name)


@pytest.mark.parametrize("name", ["a.mp4", "a/b.MKV", "a.png.mov", Path("a.ts")], ids=str)
def test_videos(name):
    assert is_video(name)
    assert not is_image(name)


@pytest.mark.parametrize("name", ["photo", "a.HEIC", "a/b.gif", "a.data1", "a.", "v1.2"])
def test_names_that_say_nothing(name):
    assert says_nothing(name)


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.txt", "a/b.JSON", "a.mp4", ".hidden", "a/.x", "w.pth", ""])
def test_names_that_say_what_they_are(name):
    assert not says_nothing(name)


@pytest.mark.parametrize("name", ["jpg", "mp4", ".jpg", ".mp4", "a/.x.jpg", "a.txt", "a.mp4/000001", "a.", ""])
def test_neither(name):
    assert not is_image(name)
    assert not is_video(name)
