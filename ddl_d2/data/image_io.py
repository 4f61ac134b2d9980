"""The one place where a picture, a mask or a video frame from outside is opened, and where a PNG is written.

`H, W` are pixels after the EXIF orientation has been applied. What becomes of each kind of file:

| file                                  | `read_image`                  | `read_mask`, `read_map`                      |
|---------------------------------------|-------------------------------|----------------------------------------------|
| 8-bit RGB, grey, 1-bit, palette       | RGB, grey repeated            | the largest channel (grey: the grey value)   |
| alpha (RGBA, LA, palette)             | dropped: stored colours count | dropped                                      |
| 16-bit grey or colour                 | high byte (`>> 8`)            | high byte; the value if none is above 255    |
| CMYK, YCbCr                           | converted to RGB by Pillow    | as the picture, then the largest channel     |
| 32-bit integers, float, CIE Lab       | refused                       | refused                                      |
| animated or many pages                | first frame                   | first frame                                  |
| truncated, too large, other formats   | refused                       | refused                                      |
| unreadable EXIF block                 | taken as not rotated          | taken as not rotated                         |

Refused means `ImageReadError`, the only exception that a file can cause here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 * 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# FFmpeg demuxers that read one file and nothing it points at (playlists and concat scripts are left out).
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,gif"

# A mask is binary: a grey value from here on is forged.
MASK_THRESHOLD = 128

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_TEXT, _XMP_TEXT = b"Raw profile type exif", b"XML:com.adobe.xmp"
_MAX_CHUNKS = 100_000

_LOSSLESS = ("PNG", "BMP", "TIFF")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_CONVERTIBLE = ("RGB", "L", "1", "P", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_STRIP_PIXELS = 2**22
# EXIF orientation -> (rows run backwards, columns run backwards); from 5 on rows and columns are swapped first.
_FLIPS = {
    1: (False, False),
    2: (False, True),
    3: (True, True),
    4: (True, False),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}
_LOAD_LOCK = threading.Lock()


class ImageReadError(ValueError):
    """A picture, mask or video that cannot be used: `path`, and `reason` in words."""

    def __init__(self, path: str | os.PathLike[str], reason: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(self.path, reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class _Refused(Exception):
    """Why a file is not taken; `_guard` adds which file."""


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a picture.

    Args:
        path: a JPEG, PNG, WebP, BMP or TIFF file (told by its content, not by its name).
        max_pixels: the most pixels, height x width in the header, that are decoded.

    Returns:
        uint8, H x W x 3, RGB, 0..255, contiguous and writable.

    Raises:
        ImageReadError: the file is missing, not a regular file, of another format, too large, truncated or broken.
    """
    with _guard(path), _opened(path, max_pixels) as image:
        _load(image)
        return _to_rgb(image)


def read_image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of a picture as `read_image` would return it, from the header alone.

    Raises:
        ImageReadError: as `read_image`, except for damage past the header.
    """
    with _guard(path), _opened(path, max_pixels) as image:
        width, height = image.size
        # Pillow has already swapped a TIFF's sides.
        if image.format != "TIFF" and _may_be_turned(image) and _orientation(image) >= 5:
            width, height = height, width
        return height, width


def read_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a forgery mask: bool, H x W, True = forged.

    Forged is a grey value of 128 or more, so a mask that is 255 everywhere is forged everywhere. A lossless file
    whose largest value is 1 is read as coded {0, 1}: 1 is forged. An inverted mask cannot be told from a true one.

    Raises:
        ImageReadError: as `read_image`.
    """
    with _guard(path), _opened(path, max_pixels) as image:
        grey, _ = _grey(image)
        return _forged(image, grey)


def inspect_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[str, ...]]:
    """`read_mask`, and what was odd about the file.

    Returns:
        the mask, and any of "coded_01" (largest value 1), "soft" (values other than the two ends), "colour" (channels
        differ), "alpha", "sixteen_bit".
    """
    with _guard(path), _opened(path, max_pixels) as image:
        grey, notes = _grey(image)
        mask = _forged(image, grey)
        if image.format in _LOSSLESS:
            if int(grey.max()) == 1:
                notes = (*notes, "coded_01")
            elif bool(((grey != 0) & (grey != 255)).any()):
                notes = (*notes, "soft")
        return mask, notes


def read_map(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a stored forgery map: uint8, H x W; 255 is probability 1. Raises as `read_image`."""
    with _guard(path), _opened(path, max_pixels) as image:
        return _grey(image)[0]


def write_png(path: str | os.PathLike[str], array: np.ndarray, *, compress_level: int = 6) -> None:
    """Write a PNG so that a reader sees the whole file or none; folders on the way are made.

    Args:
        path: where to; an existing file is replaced.
        array: bool H x W (written as 1 bit), uint8 H x W (8-bit grey) or uint8 H x W x 3 (RGB).
        compress_level: zlib's, 0..9.

    Raises:
        ValueError: another dtype or shape, or no pixels.
        OSError: the disk refuses.
    """
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    flat = array.ndim == 2 and array.dtype in (np.uint8, np.bool_)
    if not (colour or flat) or array.size == 0:
        raise ValueError(
            f"write_png takes bool or uint8 H x W, or uint8 H x W x 3, not {array.dtype} {tuple(array.shape)}"
        )
    target = os.fspath(path)
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    temporary = f"{target}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG", compress_level=compress_level)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def iter_video_frames(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Decode the first video stream of a file, one frame at a time.

    Args:
        path: a video file. Playlists and other files that name further files are refused.
        max_pixels: the most pixels a frame may have.

    Yields:
        (index from 0, time in seconds, uint8 H x W x 3 RGB), turned as the file's display matrix says.

    Raises:
        ImageReadError: not a video, no video stream, a frame too large, or damage (after the frames before it).
    """
    import av

    with _guard(path), _regular_file(path) as file:
        options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"}
        with av.open(file, mode="r", options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise _Refused("holds no video stream")
            stream = container.streams.video[0]
            _check_pixels(stream.codec_context.width, stream.codec_context.height, max_pixels)
            index = -1
            for index, frame in enumerate(container.decode(stream)):  # noqa: B007 (used after the loop)
                _check_pixels(frame.width, frame.height, max_pixels)
                rgb = frame.to_ndarray(format="rgb24")
                turns = round(frame.rotation / 90) % 4
                seconds = frame.time if frame.time is not None else index / float(stream.average_rate or 25)
                yield index, float(seconds), np.ascontiguousarray(np.rot90(rgb, turns))
            if index < 0:
                raise _Refused("no frame could be decoded")


@contextlib.contextmanager
def _guard(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a decoder raises into one ImageReadError. A consumer's own exception cannot pass through here."""
    try:
        yield
    except _Refused as refusal:
        raise ImageReadError(path, str(refusal)) from refusal.__cause__
    except FileNotFoundError as error:
        raise ImageReadError(path, "no such file") from error
    except MemoryError as error:
        raise ImageReadError(path, "not enough memory to decode it") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ImageReadError(path, f"cannot be decoded ({type(error).__name__}: {text})") from error


@contextlib.contextmanager
def _regular_file(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open for reading without ever waiting on a pipe, and only if it is a file with a sane size."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("is not a regular file")
        if status.st_size == 0:
            raise _Refused("is empty (0 bytes)")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], max_pixels: int) -> Iterator[Image.Image]:
    with _regular_file(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
            raise _Refused(f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.UnidentifiedImageError as error:
            raise _Refused("is not a readable JPEG, PNG, WebP, BMP or TIFF picture") from error
        with image:
            # Past Pillow's own limit it only warns of a decompression bomb: here that is an error too.
            _check_pixels(*image.size, min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels))
            yield image


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise _Refused(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise _Refused(f"has {width} x {height} pixels, more than the limit of {max_pixels}")


def _load(image: Image.Image) -> None:
    # A TIFF may hold strips for a part of its size only; Pillow would leave the rest black.
    extents = [tile[1] for tile in getattr(image, "tile", ())]
    if extents and sum((right - left) * (low - top) for left, top, right, low in extents) < image.width * image.height:
        raise _Refused("holds data for a part of its size only")
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        image.load()
        return
    # Another library has allowed truncated pictures for the whole process: not for ours.
    with _LOAD_LOCK:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 if there is none or the block cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 (any damage in an optional block means: no orientation)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _may_be_turned(image: Image.Image) -> bool:
    """False for a PNG without any chunk that could say so. Such a chunk may come last: Pillow decodes all before it."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if image.format != "PNG" or file is None:
        return True
    position = len(_PNG_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        head = file.read(8 + len(_EXIF_TEXT))
        kind, text = head[4:8], head[8:]
        if kind == b"IEND":
            return False
        if len(head) < 8 or kind == b"eXIf":
            return True
        if kind in (b"tEXt", b"zTXt", b"iTXt") and text.startswith((_EXIF_TEXT, _XMP_TEXT)):
            return True
        position += 12 + int.from_bytes(head[:4], "big")
    return True


def _sixteen_bit(image: Image.Image) -> np.ndarray:
    """uint16 H x W of a loaded 16-bit grey picture, upright."""
    return _upright(np.asarray(image).astype(np.uint16, copy=False), _orientation(image))


def _to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 H x W x 3 of a loaded picture, upright."""
    if image.mode in _SIXTEEN_BIT:
        grey = (_sixteen_bit(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode not in _CONVERTIBLE:
        raise _Refused(f"has pixels of type {image.mode}, which are refused")
    # Without this Pillow would spend time (and warn) on a transparency that is dropped anyway.
    image.info.pop("transparency", None)
    rgb = np.empty((image.height, image.width, 3), dtype=np.uint8)
    # In strips, as Pillow makes several whole copies on the way to an array.
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image if rows >= image.height else image.crop((0, top, image.width, bottom))
        if strip.mode in ("RGBa", "La", "PA"):
            strip = strip.convert("RGBA")
        rgb[top:bottom] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return np.ascontiguousarray(_upright(rgb, _orientation(image)))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """A view of H x W (x C) as EXIF `orientation` 1..8 wants it seen."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    flip_rows, flip_columns = _FLIPS[orientation]
    return array[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _forged(image: Image.Image, grey: np.ndarray) -> np.ndarray:
    """The mask that `grey` means; see `read_mask`."""
    if image.format in _LOSSLESS and int(grey.max()) == 1:
        return grey == 1
    return grey >= MASK_THRESHOLD


def _grey(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 H x W, the largest channel, and notes on the coding (see `inspect_mask`)."""
    _load(image)
    alpha = ("alpha",) if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info else ()
    if image.mode in _SIXTEEN_BIT:
        values = _sixteen_bit(image)
        narrow = values if values.max() <= 255 else values >> 8
        return narrow.astype(np.uint8), ("sixteen_bit",)
    if image.mode in ("L", "1"):
        # A 1-bit picture is unpacked to 0 and 255 on the way out, without a converted copy.
        values = np.frombuffer(bytearray(image.tobytes("raw", "L")), np.uint8).reshape(image.height, image.width)
        return np.ascontiguousarray(_upright(values, _orientation(image))), alpha
    rgb = _to_rgb(image)
    top = rgb.max(axis=2)
    colour = ("colour",) if bool((rgb.min(axis=2) != top).any()) else ()
    return top, (*colour, *alpha)
