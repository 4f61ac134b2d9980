"""The pixels of a JPEG that `image_io` has opened and checked: the second half of reading most pictures, made quick.

torchvision's libjpeg gives the values of Pillow's on sound files, and takes a fifth less time, as Pillow copies every
pixel twice on the way to an array. It is only asked where the answer cannot differ in size, and Pillow has the last
word on whatever it does not take.
"""

from __future__ import annotations

import os
import struct

import numpy as np
import torch
from PIL import Image, ImageFile

MAX_BYTES = 64 * 2**20
"""Larger files are left to Pillow, which does not need them in memory as a whole."""

_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEGMENT_MARKERS = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})


def decode_jpeg(image: Image.Image) -> np.ndarray | None:
    """Decode a colour JPEG that Pillow has opened but not loaded.

    Returns:
        uint8 H x W x 3 RGB as stored (EXIF orientation not applied), contiguous and writable; None for another kind of
        picture and for one that torchvision does not take: cut short, damaged beyond mending, or unusual. Pillow can
        still load `image` then.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.fp is None:
        return None
    if image.format != "JPEG" or image.mode != "RGB":
        return None
    if os.fstat(image.fp.fileno()).st_size > MAX_BYTES:
        return None
    image.fp.seek(0)
    code = np.fromfile(image.fp, dtype=np.uint8)
    if frame_size(code) != image.size:
        return None
    from torchvision.io import decode_jpeg as decode  # here, so that reading other files does not load it

    try:
        planes = decode(torch.from_numpy(code))
    except RuntimeError:
        return None
    return np.ascontiguousarray(planes.permute(1, 2, 0).numpy()) if len(planes) == 3 else None


def frame_size(code: np.ndarray) -> tuple[int, int] | None:
    """(width, height) in the first frame header of a JPEG file's bytes, or None if they are out of the ordinary before.

    The decoder allocates by this header. In a file made for that purpose Pillow may have read its size from another.
    """
    position = 2
    while position + 9 <= len(code) and code[position] == 0xFF:
        marker = int(code[position + 1])
        length, _, height, width = struct.unpack(">HBHH", code[position + 2 : position + 9].tobytes())
        if marker in _FRAME_MARKERS:
            return width, height
        if marker not in _SEGMENT_MARKERS or length < 2:
            return None
        position += 2 + length
    return None
