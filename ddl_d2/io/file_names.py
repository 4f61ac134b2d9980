"""Whether a file is an image or a video, as far as its name tells."""

from __future__ import annotations

import os

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"})
VIDEO_EXTENSIONS = frozenset({"mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "ts", "flv", "wmv", "ogv"})


def is_image(name: str | os.PathLike[str]) -> bool:
    """Tell whether a file name ends like an image's, in upper or lower case; hidden files (".x") are none."""
    return _ends_like(name, IMAGE_EXTENSIONS)


def is_video(name: str | os.PathLike[str]) -> bool:
    """Tell whether a file name ends like a video's, in upper or lower case; hidden files (".x") are none."""
    return _ends_like(name, VIDEO_EXTENSIONS)


def _ends_like(name: str | os.PathLike[str], extensions: frozenset[str]) -> bool:
    # Asked for every file of a dataset: os.path.basename alone would take twice as long as all of this.
    stem, _, extension = os.fspath(name).rpartition("/")[2].rpartition(".")
    return stem[:1] not in ("", ".") and extension.lower() in extensions
