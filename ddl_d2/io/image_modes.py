"""Opening image files with Pillow, and what becomes of their pixels: RGB, gray, upright.

`H, W` are pixels after the EXIF orientation has been applied. Everything here may raise whatever a decoder raises:
callers stand inside `guard`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ddl_d2.io.file_kinds import image_format, is_read
from ddl_d2.io.guard import RefusedError, check_pixels, regular_file
from ddl_d2.io.orientation import EXIF_TURNS, UPRIGHT, Turn, turned

MAX_FILE_BYTES = 512 * 2**20
"""The largest file, unless more than 2^26 pixels are allowed: then 8 bytes for each."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, BmpImagePlugin, TiffImagePlugin)
"""Importing them registers the formats with Pillow."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_TEXT, _XMP_TEXT = b"Raw profile type exif", b"XML:com.adobe.xmp"
_MAX_CHUNKS = 100_000

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_CONVERTIBLE = ("RGB", "L", "1", "P", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_STRIP_PIXELS = 2**22
_LOAD_LOCK = threading.Lock()


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], max_pixels: int) -> Iterator[Image.Image]:
    """Open an image of one of `FORMATS`, not decoded yet.

    Raises:
        RefusedError: another format, too large a file, too many pixels, or none.
    """
    with regular_file(path) as file, decoder(file, os.fstat(file.fileno()).st_size, max_pixels) as image:
        yield image


@contextlib.contextmanager
def decoder(file: BinaryIO, num_bytes: int, max_pixels: int) -> Iterator[Image.Image]:
    """Give the image of a file that is open, or of bytes in memory; otherwise as `opened`."""
    allowed = max(MAX_FILE_BYTES, 8 * max_pixels)
    if num_bytes > allowed:
        raise RefusedError(f"is larger than {allowed // 2**20} MiB")
    with _identified(file) as image:
        check_pixels(*image.size, max_pixels)
        yield image


def _identified(file: BinaryIO) -> Image.Image:
    """Open a file as `Image.open` does, but for its limit of pixels: here that is the caller's to set."""
    head = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(head) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # how Pillow's readers say that it is not theirs
            continue
    found = image_format(head)
    if found and not is_read(found):
        raise RefusedError(f"is a {found} image, which is not read: save it as JPEG or PNG")
    raise RefusedError("is not a readable JPEG, PNG, WebP, BMP or TIFF image")


def load(image: Image.Image) -> None:
    """Decode an opened image, all of it or not at all.

    Raises:
        RefusedError: a TIFF with strips for a part of its size only.
    """
    # Pillow would leave the rest black.
    extents = [tile[1] for tile in getattr(image, "tile", ())]
    if extents and sum((right - left) * (low - top) for left, top, right, low in extents) < image.width * image.height:
        raise RefusedError("holds data for a part of its size only")
    limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    # Pillow's reader of TIFFs asks for its limit once more; how many pixels may be read has been decided before.
    limited = image.format == "TIFF" and limit is not None and image.width * image.height > limit
    if not truncated and not limited:
        image.load()
        return
    # These are settings of the whole process. If another library has allowed truncated images: not for ours.
    with _LOAD_LOCK:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        Image.MAX_IMAGE_PIXELS = None if limited else limit
        try:
            image.load()
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, truncated


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) of an opened image; it is decoded only where its orientation comes after its pixels."""
    width, height = image.size
    # Pillow has already swapped a TIFF's sides.
    swapped = image.format != "TIFF" and turn_of_image(image).swapped
    return (width, height) if swapped else (height, width)


def turn_of_image(image: Image.Image) -> Turn:
    """Read how an opened image is turned by EXIF; it is decoded only where that comes after its pixels."""
    return _turn(image) if _may_be_turned(image) else UPRIGHT


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a loaded image to uint8 H x W x 3, upright.

    Raises:
        RefusedError: pixels of a type that has no RGB (32-bit integers, floats, CIE Lab).
    """
    if image.mode in _SIXTEEN_BIT:
        gray = (_sixteen_bit(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode not in _CONVERTIBLE:
        raise RefusedError(f"has pixels of type {image.mode}, which are refused")
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
    return np.ascontiguousarray(turned(rgb, _turn(image)))


def to_gray(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert a loaded image to its largest channel, upright.

    Returns:
        uint8 H x W, and any of the notes "color" (channels differ), "alpha", "sixteen_bit".

    Raises:
        RefusedError: as `to_rgb`.
    """
    alpha = ("alpha",) if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info else ()
    if image.mode in _SIXTEEN_BIT:
        values = _sixteen_bit(image)
        narrow = values if values.max() <= 255 else values >> 8
        return narrow.astype(np.uint8), ("sixteen_bit",)
    if image.mode in ("L", "1"):
        # A 1-bit image is unpacked to 0 and 255 on the way out, without a converted copy.
        values = np.frombuffer(bytearray(image.tobytes("raw", "L")), np.uint8).reshape(image.height, image.width)
        return np.ascontiguousarray(turned(values, _turn(image))), alpha
    rgb = to_rgb(image)
    top = rgb.max(axis=2)
    color = ("color",) if bool((rgb.min(axis=2) != top).any()) else ()
    return top, (*color, *alpha)


def _sixteen_bit(image: Image.Image) -> np.ndarray:
    """uint16 H x W of a loaded 16-bit gray image, upright."""
    return turned(np.asarray(image).astype(np.uint16, copy=False), _turn(image))


def _turn(image: Image.Image) -> Turn:
    """What the EXIF orientation asks for; upright if there is none or the block cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  any damage in an optional block means: no orientation
        return UPRIGHT
    return EXIF_TURNS.get(value, UPRIGHT) if isinstance(value, int) else UPRIGHT


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
