"""Whether a file is an image or a video, as far as its name tells."""

from __future__ import annotations

import os

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff"})
VIDEO_EXTENSIONS = frozenset(
    {
        *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "ts", "flv", "wmv", "ogv"),
        *("3gp", "3g2", "f4v", "asf", "m2ts", "mts", "vob"),
    }
)
OTHER_EXTENSIONS = frozenset(
    {
        *("txt", "json", "jsonl", "csv", "tsv", "xml", "yaml", "yml", "toml", "ini", "cfg", "md", "rst", "log"),
        *("html", "htm", "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "svg", "eps", "ps", "tex", "srt", "vtt"),
        *("npy", "npz", "pkl", "pickle", "pt", "pth", "ckpt", "safetensors", "onnx", "h5", "hdf5", "mat", "parquet"),
        *("arrow", "feather", "lmdb", "mdb", "db", "sqlite", "tfrecord", "bin", "dat", "idx", "index", "lock"),
        *("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar", "zst", "iso", "part", "tmp", "bak", "swp", "crdownload"),
        *("py", "pyc", "ipynb", "sh", "bat", "m", "c", "h", "cpp", "cu", "js", "css", "so", "dll", "exe"),
        *("wav", "mp3", "m4a", "aac", "flac", "ogg", "opus", "wma", "md5", "sha1", "sha256", "asc", "url", "lnk"),
    }
)
"""What is known to be neither: such a file is never opened to see what it is."""


def is_image(name: str | os.PathLike[str]) -> bool:
    """Tell whether a file name ends like an image's, in upper or lower case; hidden files (".x") are none."""
    return _ends_like(name, IMAGE_EXTENSIONS)


def is_video(name: str | os.PathLike[str]) -> bool:
    """Tell whether a file name ends like a video's, in upper or lower case; hidden files (".x") are none."""
    return _ends_like(name, VIDEO_EXTENSIONS)


def says_nothing(name: str | os.PathLike[str]) -> bool:
    """Tell whether a file has to be opened to know what it is; hidden files are not."""
    base = os.path.basename(os.fspath(name))
    if base[:1] in ("", "."):
        return False
    return not any(_ends_like(base, known) for known in (IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, OTHER_EXTENSIONS))


def _ends_like(name: str | os.PathLike[str], extensions: frozenset[str]) -> bool:
    # Asked for every file of a dataset: os.path.basename alone would take twice as long as all of this.
    stem, _, extension = os.fspath(name).rpartition("/")[2].rpartition(".")
    return stem[:1] not in ("", ".") and extension.lower() in extensions
