"""Images and videos are known by their names, and without one by how they begin."""

import pytest
from PIL import Image

from ddl_d2.io import file_kinds
from ddl_d2.io.file_kinds import file_kind, image_format, is_read, passed_over_note, read_head
from tests.video_files import write_video


@pytest.mark.parametrize("name", ["photo.jfif", "PHOTO.JPE", "photo", "photo.txt"])
def test_a_jpeg_by_any_name(tmp_path, name):
    Image.new("RGB", (4, 4)).save(tmp_path / name, format="JPEG")
    assert file_kind(tmp_path / name) == "image"


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats_by_content(tmp_path, image_format):
    Image.new("RGB", (4, 4)).save(tmp_path / "file", format=image_format)
    assert file_kind(tmp_path / "file") == "image"


def test_formats_that_are_not_read_are_images_too(tmp_path):
    for brand in (b"heic", b"avif"):
        (tmp_path / "file").write_bytes(b"\0\0\0\x18ftyp" + brand)
        assert file_kind(tmp_path / "file") == "image"


def test_videos(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 2)
    assert file_kind(clip) == "video"
    assert file_kind(clip.rename(tmp_path / "clip")) == "video"


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "mpeg2video"), ("a.wmv", "mpeg4"), ("a.mkv", "mpeg4")])
def test_videos_by_content(tmp_path, name, codec):
    assert file_kind(write_video(tmp_path / name, 4, codec=codec).rename(tmp_path / "clip")) == "video"


def test_formats_have_names(tmp_path):
    for name in ("PNG", "TIFF", "BMP", "GIF", "WEBP"):
        Image.new("RGB", (4, 4)).save(tmp_path / "file", format=name)
        assert image_format(read_head(tmp_path / "file")).upper() == name
    assert is_read("WebP")
    assert not is_read("GIF")


def test_passed_over():
    assert passed_over_note([]) == ""
    said = passed_over_note(["x/a\n.txt", "b", "c", "d"], wanted="no images")
    assert said == "4 files are no images and were passed over: a\\n.txt, b, c, ..."


def test_what_cannot_be_opened_is_not_passed_over(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(file_kinds, "read_head", denied)
    assert file_kind(tmp_path / "photo") == "image"


def test_others(tmp_path):
    (tmp_path / "notes").write_text("BM is how a bitmap begins, and so does this", encoding="utf-8")
    (tmp_path / "empty").touch()
    assert file_kind(tmp_path / "notes") == "other"
    assert file_kind(tmp_path / "empty") == file_kind(tmp_path / "absent") == file_kind(tmp_path) == "other"
