"""Reading images and masks from outside, and writing PNGs and JPEGs.

`H, W` are pixels after the EXIF orientation has been applied. What becomes of each kind of file:

| file                                  | `read_image`                  | `read_mask`, `read_map`                      |
|---------------------------------------|-------------------------------|----------------------------------------------|
| 8-bit RGB, gray, 1-bit, palette       | RGB, gray repeated            | the largest channel (gray: the gray value)   |
| alpha (RGBA, LA, palette)             | dropped: stored colors count  | dropped                                      |
| 16-bit gray or color                  | high byte (`>> 8`)            | high byte; the value if none is above 255    |
| CMYK, YCbCr                           | converted to RGB by Pillow    | as the image, then the largest channel       |
| 32-bit integers, float, CIE Lab       | refused                       | refused                                      |
| animated or many pages                | first frame                   | first frame                                  |
| truncated, too large, other formats   | refused                       | refused                                      |
| unreadable EXIF block                 | taken as not rotated          | taken as not rotated                         |

Refused means `ImageReadError`, the only exception that a file can cause here.
"""

from __future__ import annotations

import io
import os

import cv2
import numpy as np
from PIL import Image

from ddl_d2.io.atomic import replacing
from ddl_d2.io.guard import check_pixels, guard
from ddl_d2.io.image_modes import decoder, load, opened, to_gray, to_rgb, turn_of_image, upright_size
from ddl_d2.io.orientation import Turn
from ddl_d2.utils.limits import MAX_PIXELS

MASK_THRESHOLD = 128
_LONGEST_JPEG = 65_500  # pixels of a side
"""A mask is binary: a gray value from here on is forged."""
_LOSSLESS = ("PNG", "BMP", "TIFF")


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
    with guard(path), opened(path, max_pixels) as image:
        load(image)
        return to_rgb(image)


def decode_image(data: bytes, *, name: str = "bytes", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file that is in memory, as `read_image` does; `name` stands for the path in errors."""
    with guard(name), decoder(io.BytesIO(data), len(data), max_pixels) as image:
        load(image)
        return to_rgb(image)


def decode_luma(data: bytes, *, name: str = "bytes", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the lightness of an image file as it is stored, not turned: uint8 H x W. Raises as `read_image`.

    JPEG's blocks lie where the file has them, which turning by EXIF would move.
    """
    with guard(name), decoder(io.BytesIO(data), len(data), max_pixels) as image:
        load(image)
        return np.asarray(image.convert("L"))


def convert_image(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Convert a Pillow image to the pixels that `read_image` would give: uint8 H x W x 3, RGB, upright.

    Raises:
        ImageReadError: as `read_image`.
    """
    with guard("PIL image"):
        check_pixels(*image.size, max_pixels)
        own = image.copy()  # loads it, and keeps the caller's as it is
        own.info.update(image.info)
        return to_rgb(own)


def read_image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read (height, width) of an image as `read_image` would return it, from the header alone.

    Raises:
        ImageReadError: as `read_image`, except for damage past the header.
    """
    with guard(path), opened(path, max_pixels) as image:
        return upright_size(image)


def read_image_turn(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Turn:
    """Read how an image is turned by its EXIF orientation when it is shown, from the header. Raises as `read_image`."""
    with guard(path), opened(path, max_pixels) as image:
        return turn_of_image(image)


def read_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a forgery mask.

    Forged is a gray value of 128 or more, so a mask that is 255 everywhere is forged everywhere. A lossless file
    whose largest value is 1 is read as coded {0, 1}: 1 is forged. An inverted mask cannot be told from a true one.

    Returns:
        bool, H x W, True = forged.

    Raises:
        ImageReadError: as `read_image`.
    """
    with guard(path), opened(path, max_pixels) as image:
        load(image)
        return _forged(image, to_gray(image)[0])


def inspect_mask(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode a forgery mask as `read_mask`, and say what is odd about the file.

    Returns:
        The mask, and any of "coded_01" (largest value 1), "soft" (values other than the two ends), "color" (channels
        differ), "alpha", "in_alpha" (that channel differs between pixels and no other does), "sixteen_bit".

    Raises:
        ImageReadError: as `read_image`.
    """
    with guard(path), opened(path, max_pixels) as image:
        load(image)
        gray, notes = to_gray(image)
        mask = _forged(image, gray)
        if "alpha" in notes and gray.min() == gray.max() and "A" in image.getbands():
            darkest, lightest = image.getchannel("A").getextrema()
            notes = (*notes, "in_alpha") if darkest != lightest else notes
        if image.format in _LOSSLESS:
            if int(gray.max()) == 1:
                notes = (*notes, "coded_01")
            elif bool(((gray != 0) & (gray != 255)).any()):
                notes = (*notes, "soft")
        return mask, notes


def mask_coding(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> str:
    """Say which gray values a mask has (at most six) and which count as forged. Raises as `read_image`."""
    values = np.unique(read_map(path, max_pixels=max_pixels))
    coding = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    return f"gray values are {coding}, and forged is {MASK_THRESHOLD} or more"


def read_map(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a stored forgery map.

    Returns:
        uint8, H x W; 255 is probability 1.

    Raises:
        ImageReadError: as `read_image`.
    """
    with guard(path), opened(path, max_pixels) as image:
        load(image)
        return to_gray(image)[0]


def _forged(image: Image.Image, gray: np.ndarray) -> np.ndarray:
    """The mask that the gray values of a loaded image mean."""
    if image.format in _LOSSLESS and int(gray.max()) == 1:
        return gray == 1
    return gray >= MASK_THRESHOLD


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


def jpeg_bytes(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an image (uint8 H x W x 3, RGB) as JPEG with 4:2:0 chroma at `quality` 1..100.

    Returns:
        The file's bytes, uint8 N.

    Raises:
        ValueError: more than 65,500 pixels a side.
    """
    # OpenCV says it in two ways, depending on its version.
    if max(image.shape[:2]) > _LONGEST_JPEG:
        raise ValueError(f"an image of shape {image.shape} cannot be written as JPEG (65,500 pixels a side at most)")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
