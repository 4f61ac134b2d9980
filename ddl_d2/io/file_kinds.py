"""Whether a file is an image or a video: by its name where that says so, else by its first bytes."""

from __future__ import annotations

import os

from ddl_d2.io.file_names import is_image, is_video

# Formats that are read, and formats that are recognized so that they are refused with a reason instead of passed over.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"GIF8", b"\xff\x0a", b"\0\0\0\x0cJXL ")
_VIDEOS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"FLV\x01", b"OggS")
_IMAGE_BRANDS = (b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1", b"avif", b"avis")


def file_kind(path: str | os.PathLike[str]) -> str:
    """The kind of a file: "image", "video" or "other".

    A file whose name does not end like an image's or a video's (`.jfif`, `.HEIC`, no suffix) is opened to see how it
    begins. Whether an image can be read is not looked at.
    """
    if is_image(path):
        return "image"
    if is_video(path):
        return "video"
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return "other"
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _is_bitmap(head):
        return "image"
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in _IMAGE_BRANDS else "video"
    return "video" if head.startswith(_VIDEOS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI ") else "other"


def _is_bitmap(head: bytes) -> bool:
    """Whether a BMP begins so: "BM", a size, four reserved bytes that are zero. Text begins with "BM", too."""
    return head[:2] == b"BM" and head[6:10] == bytes(4)
