"""Whether a file is an image or a video: by its name where that says so, else by its first bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ddl_d2.io.file_names import is_image, is_video
from ddl_d2.utils.text import printable

# Formats that are read, and formats that are recognized so that they are refused with a reason instead of passed over.
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "Canon raw",
}
_READ = frozenset({"JPEG", "PNG", "WebP", "BMP", "TIFF"})
_VIDEOS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"FLV\x01", b"OggS", b"0&\xb2u\x8ef\xcf\x11")
_TRANSPORT_PACKET = 188
_HEAD = 2 * _TRANSPORT_PACKET + 1
_SHOWN = 3


def file_kind(path: str | os.PathLike[str]) -> str:
    """Tell the kind of a file: "image", "video" or "other".

    A file whose name does not end like an image's or a video's (`.HEIC`, no suffix) is opened to see how it begins.
    Whether an image can be read is not looked at; a file that cannot be opened counts as one, so that reading it says
    why.
    """
    if is_image(path):
        return "image"
    if is_video(path):
        return "video"
    try:
        return kind_of_head(read_head(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "other"
    except OSError:
        return "image"


def read_head(path: str | os.PathLike[str]) -> bytes:
    """Read how a file begins, as much as tells its kind. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(_HEAD)


def kind_of_head(head: bytes) -> str:
    """Tell the kind of a file from its first bytes: "image", "video" or "other"."""
    if image_format(head):
        return "image"
    video = head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI ") or head.startswith(_VIDEOS)
    return "video" if video or _is_transport_stream(head) else "other"


def image_format(head: bytes) -> str:
    """Name the format of an image from its first bytes, "" for no image."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # reserved bytes; text may begin with "BM", too
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    return next((name for start, name in _STARTS.items() if head.startswith(start)), "")


def is_read(name: str) -> bool:
    """Tell whether images of a format that `image_format` names can be read."""
    return name in _READ


def passed_over_note(files: Iterable[str | os.PathLike[str]], *, wanted: str = "neither images nor videos") -> str:
    """Say in one line which files were passed over; "" for none."""
    names = [printable(os.path.basename(file)) for file in files]
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} files are {wanted} and were passed over: {', '.join(names[:_SHOWN])}{more}"


def _is_transport_stream(head: bytes) -> bool:
    """Whether an MPEG transport stream begins so: each packet with one letter, in some recordings after a time code."""
    return any(
        len(head) > start + _TRANSPORT_PACKET and head[start] == head[start + _TRANSPORT_PACKET + start] == ord("G")
        for start in (0, 4)
    )
