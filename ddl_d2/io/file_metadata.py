"""What an image file says of itself besides its pixels: format, JPEG tables, camera data, declared sources.

None of it is signed: whoever can write the file can write any of it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from ddl_d2.io.guard import guard
from ddl_d2.io.image_modes import decoder
from ddl_d2.utils.limits import MAX_PIXELS
from ddl_d2.utils.text import printable

_TAGS = ("Make", "Model", "Software", "DateTime", "DateTimeOriginal", "ExifImageWidth", "ExifImageHeight", "Artist")
_TEXTS = ("Software", "parameters", "prompt", "workflow", "Comment", "Description")
_LONGEST_TEXT = 200
_SOURCE = re.compile(rb"digitalsourcetype/(\w+)")
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_ANY_SIZE = 2**62
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG file is coded.

    Attributes:
        tables: quantization tables in the file's order, each uint16 8×8 in rows of rising frequency.
        subsampling: of the colors, such as "4:2:0"; "" if it is another or there is one channel only.
        progressive: coded in several passes.
    """

    tables: tuple[NDArray[np.uint16], ...]
    subsampling: str
    progressive: bool


@dataclass(frozen=True)
class FileMetadata:
    """What an image file says of itself.

    Attributes:
        format: "JPEG", "PNG", "WEBP", "BMP" or "TIFF".
        width, height: pixels as stored, before any turning.
        exif: some entries of its camera data (EXIF), by their names; `GPS` tells only that there is a place.
        texts: some texts of a PNG, such as those in which image generators note their prompts.
        declared_sources: IPTC digital source types in its XMP, such as "trainedAlgorithmicMedia".
        jpeg: how a JPEG is coded; None for other formats.
        unreadable: its camera data is damaged.
    """

    format: str
    width: int
    height: int
    exif: Mapping[str, str | int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    declared_sources: Sequence[str] = ()
    jpeg: JpegCoding | None = None
    unreadable: bool = False


def read_file_metadata(content: bytes, *, name: str = "bytes", max_pixels: int = MAX_PIXELS) -> FileMetadata:
    """Read what an image file says of itself; its pixels are not decoded, and what stands behind a PNG's is not seen.

    Args:
        content: the file.
        name: stands for its path in errors.
        max_pixels: the most pixels it may have.

    Raises:
        ImageReadError: not an image that `read_image` would open.
    """
    with guard(name), decoder(io.BytesIO(content), len(content), max_pixels) as image:
        try:
            exif, damaged = _exif(image), False
        except Exception:  # noqa: BLE001  a damaged block of camera data is no reason to refuse the image
            exif, damaged = {}, True
        return FileMetadata(
            format=image.format or "",
            width=image.width,
            height=image.height,
            exif=exif,
            texts={key: _text(image.info[key]) for key in _TEXTS if isinstance(image.info.get(key), (str, bytes))},
            declared_sources=_sources(image),
            jpeg=_coding(image),
            unreadable=damaged,
        )


def stored_size(content: bytes, *, name: str = "bytes") -> tuple[int, int]:
    """Read (width, height) of an image file as stored, from its header alone, however large it says it is.

    Raises:
        ImageReadError: not an image that `read_image` would open, or one without pixels.
    """
    with guard(name), decoder(io.BytesIO(content), len(content), _ANY_SIZE) as image:
        return image.width, image.height


def standard_table(quality: int) -> NDArray[np.uint16]:
    """The luma quantization table of libjpeg at a quality 1..100, 8×8 (ITU-T T.81, Annex K.1, scaled)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMA * scale + 50) // 100, 1, 255).astype(np.uint16)


def jpeg_quality(table: NDArray[np.uint16]) -> tuple[int, bool]:
    """The quality at which libjpeg's luma table is the nearest, and whether it is that table exactly."""
    distances = [int(np.abs(standard_table(q).astype(int) - table).sum()) for q in range(1, 101)]
    best = int(np.argmin(distances))
    return best + 1, distances[best] == 0


_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def _coding(image: Image.Image) -> JpegCoding | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    tables = tuple(np.array(image.quantization[key], np.uint16).reshape(8, 8) for key in sorted(image.quantization))
    sampling = _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), "") if image.layers == 3 else ""
    return JpegCoding(tables, sampling, bool(image.info.get("progressive")))


def _exif(image: Image.Image) -> dict[str, str | int]:
    if isinstance(image, PngImagePlugin.PngImageFile):  # Pillow would decode it to see what stands behind the pixels
        block = Image.Exif()
        block.load(image.info.get("exif", b""))
    else:
        block = image.getexif()
    inner = block.get_ifd(ExifTags.IFD.Exif)
    values = {ExifTags.TAGS.get(key, ""): value for key, value in (*block.items(), *inner.items())}
    found: dict[str, str | int] = {name: _plain(values[name]) for name in _TAGS if name in values}
    if block.get_ifd(ExifTags.IFD.GPSInfo):
        found["GPS"] = "present"
    return found


def _plain(value: Any) -> str | int:
    return value if isinstance(value, int) else _text(value)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return printable(text.strip("\0 "))[:_LONGEST_TEXT]


def _sources(image: Image.Image) -> list[str]:
    found: set[str] = set()
    for key in _XMP_KEYS:
        block = image.info.get(key, b"")
        raw = block.encode("utf-8", "replace") if isinstance(block, str) else block
        found.update(match.decode("ascii") for match in _SOURCE.findall(raw if isinstance(raw, bytes) else b""))
    return sorted(found)
