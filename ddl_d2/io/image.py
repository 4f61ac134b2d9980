"""Reading images and masks from outside, and writing PNGs.

`H, W` are pixels after the EXIF orientation has been applied. What becomes of each kind of file:

| file                                  | `read_image`                  | `read_mask`, `read_map`                      |
|---------------------------------------|-------------------------------|----------------------------------------------|
| 8-bit RGB, gray, 1-bit, palette       | RGB, gray repeated            | the largest channel (gray: the gray value)   |
| alpha (RGBA, LA, palette)             | dropped: stored colors count | dropped                                      |
| 16-bit gray or color                 | high byte (`>> 8`)            | high byte; the value if none is above 255    |
| CMYK, YCbCr                           | converted to RGB by Pillow    | as the image, then the largest channel     |
| 32-bit integers, float, CIE Lab       | refused                       | refused                                      |
| animated or many pages                | first frame                   | first frame                                  |
| truncated, too large, other formats   | refused                       | refused                                      |
| unreadable EXIF block                 | taken as not rotated          | taken as not rotated                         |

Refused means `ImageReadError`, the only exception that a file can cause here.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from ddl_d2.io.atomic import replacing
from ddl_d2.io.file_names import is_video
from ddl_d2.io.guard import RefusedError, check_pixels, guard, regular_file
from ddl_d2.io.video import read_frame
from ddl_d2.utils.limits import MAX_PIXELS

MAX_FILE_BYTES = 512 * 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# A mask is binary: a gray value from here on is forged.
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


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image.

    Args:
        path: a JPEG, PNG, WebP, BMP or TIFF file (told by its content, not by its name).
        max_pixels: the most pixels, height x width in the header, that are decoded.

    Returns:
        uint8, H x W x 3, RGB, 0..255, contiguous and writable.

    Raises:
        ImageReadError: the file is missing, not a regular file, of another format, too large, truncated or broken.
    """
    with guard(path), _opened(path, max_pixels) as image:
        _load(image)
        return _to_rgb(image)


def decode_image(data: bytes, *, name: str = "bytes", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file that is in memory, as `read_image` does; `name` stands for the path in errors."""
    with guard(name), _decoder(io.BytesIO(data), len(data), max_pixels) as image:
        _load(image)
        return _to_rgb(image)


def convert_image(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a Pillow image as `read_image` gives them: uint8 H x W x 3 RGB, upright. Raises as `read_image`."""
    with guard("PIL image"):
        check_pixels(*image.size, max_pixels)
        own = image.copy()  # loads it, and keeps the caller's as it is
        own.info.update(image.info)
        return _to_rgb(own)


def read_image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of an image as `read_image` would return it, from the header alone.

    Raises:
        ImageReadError: as `read_image`, except for damage past the header.
    """
    with guard(path), _opened(path, max_pixels) as image:
        width, height = image.size
        # Pillow has already swapped a TIFF's sides.
        if image.format != "TIFF" and _may_be_turned(image) and _orientation(image) >= 5:
            width, height = height, width
        return height, width


def read_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a forgery mask: bool, H x W, True = forged.

    Forged is a gray value of 128 or more, so a mask that is 255 everywhere is forged everywhere. A lossless file
    whose largest value is 1 is read as coded {0, 1}: 1 is forged. An inverted mask cannot be told from a true one.

    Raises:
        ImageReadError: as `read_image`.
    """
    with guard(path), _opened(path, max_pixels) as image:
        gray, _ = _gray(image)
        return _forged(image, gray)


def inspect_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[str, ...]]:
    """`read_mask`, and what was odd about the file.

    Returns:
        the mask, and any of "coded_01" (largest value 1), "soft" (values other than the two ends), "color" (channels
        differ), "alpha", "sixteen_bit".
    """
    with guard(path), _opened(path, max_pixels) as image:
        gray, notes = _gray(image)
        mask = _forged(image, gray)
        if image.format in _LOSSLESS:
            if int(gray.max()) == 1:
                notes = (*notes, "coded_01")
            elif bool(((gray != 0) & (gray != 255)).any()):
                notes = (*notes, "soft")
        return mask, notes


def read_map(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a stored forgery map: uint8, H x W; 255 is probability 1. Raises as `read_image`."""
    with guard(path), _opened(path, max_pixels) as image:
        return _gray(image)[0]


def read_row_image(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image of a dataset dict: `file_name`, or frame `frame_index` of it where that is a video.

    Returns and raises as `read_image`.
    """
    if is_video(row["file_name"]):
        return read_frame(row["file_name"], int(row["frame_index"]), max_pixels=max_pixels)
    return read_image(row["file_name"], max_pixels=max_pixels)


def read_row_size(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of `read_row_image`'s image; of a video its frame is decoded. Raises as `read_image`."""
    if is_video(row["file_name"]):
        return read_row_image(row, max_pixels=max_pixels).shape[:2]
    return read_image_size(row["file_name"], max_pixels=max_pixels)


def read_row_mask(row: Mapping[str, Any], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The forgery mask that a dataset dict names: `mask_file_name`, or frame `frame_index` of it where that is a video.

    Returns bool, H x W, True = forged: 128 or more in the largest channel. Videos are lossy, so no other coding is
    guessed at there. Raises as `read_image`.
    """
    path = row["mask_file_name"]
    if is_video(path):
        return read_frame(path, int(row["frame_index"]), max_pixels=max_pixels).max(axis=2) >= MASK_THRESHOLD
    return read_mask(path, max_pixels=max_pixels)


def write_png(path: str | os.PathLike[str], array: np.ndarray, *, compress_level: int = 6) -> None:
    """Write a PNG so that a reader sees the whole file or none; folders on the way are made.

    Args:
        path: where to; an existing file is replaced.
        array: bool H x W (written as 1 bit), uint8 H x W (8-bit gray) or uint8 H x W x 3 (RGB).
        compress_level: zlib's, 0..9.

    Raises:
        ValueError: another dtype or shape, or no pixels.
        OSError: the disk refuses.
    """
    color = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    flat = array.ndim == 2 and array.dtype in (np.uint8, np.bool_)
    if not (color or flat) or array.size == 0:
        raise ValueError(
            f"write_png takes bool or uint8 H x W, or uint8 H x W x 3, not {array.dtype} {tuple(array.shape)}"
        )
    target = os.fspath(path)
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    with replacing(target) as temporary:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG", compress_level=compress_level)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], max_pixels: int) -> Iterator[Image.Image]:
    with regular_file(path) as file, _decoder(file, os.fstat(file.fileno()).st_size, max_pixels) as image:
        yield image


@contextlib.contextmanager
def _decoder(file: BinaryIO, num_bytes: int, max_pixels: int) -> Iterator[Image.Image]:
    if num_bytes > MAX_FILE_BYTES:
        raise RefusedError(f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise RefusedError("is not a readable JPEG, PNG, WebP, BMP or TIFF image") from error
    with image:
        # Past Pillow's own limit it only warns of a decompression bomb: here that is an error too.
        check_pixels(*image.size, min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels))
        yield image


def _load(image: Image.Image) -> None:
    # A TIFF may hold strips for a part of its size only; Pillow would leave the rest black.
    extents = [tile[1] for tile in getattr(image, "tile", ())]
    if extents and sum((right - left) * (low - top) for left, top, right, low in extents) < image.width * image.height:
        raise RefusedError("holds data for a part of its size only")
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        image.load()
        return
    # Another library has allowed truncated images for the whole process: not for ours.
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
    """uint16 H x W of a loaded 16-bit gray image, upright."""
    return _upright(np.asarray(image).astype(np.uint16, copy=False), _orientation(image))


def _to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 H x W x 3 of a loaded image, upright."""
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
    return np.ascontiguousarray(_upright(rgb, _orientation(image)))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """A view of H x W (x C) as EXIF `orientation` 1..8 wants it seen."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    flip_rows, flip_columns = _FLIPS[orientation]
    return array[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _forged(image: Image.Image, gray: np.ndarray) -> np.ndarray:
    """The mask that `gray` means; see `read_mask`."""
    if image.format in _LOSSLESS and int(gray.max()) == 1:
        return gray == 1
    return gray >= MASK_THRESHOLD


def _gray(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 H x W, the largest channel, and notes on the coding (see `inspect_mask`)."""
    _load(image)
    alpha = ("alpha",) if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info else ()
    if image.mode in _SIXTEEN_BIT:
        values = _sixteen_bit(image)
        narrow = values if values.max() <= 255 else values >> 8
        return narrow.astype(np.uint8), ("sixteen_bit",)
    if image.mode in ("L", "1"):
        # A 1-bit image is unpacked to 0 and 255 on the way out, without a converted copy.
        values = np.frombuffer(bytearray(image.tobytes("raw", "L")), np.uint8).reshape(image.height, image.width)
        return np.ascontiguousarray(_upright(values, _orientation(image))), alpha
    rgb = _to_rgb(image)
    top = rgb.max(axis=2)
    color = ("color",) if bool((rgb.min(axis=2) != top).any()) else ()
    return top, (*color, *alpha)
