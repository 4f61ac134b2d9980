"""What is left of an image that was compressed and decompressed.

Each function takes an image (uint8 H×W×3 RGB) and returns one of the same kind and size, always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av
import cv2
import numpy as np

from ddl_d2.io.image import jpeg_bytes

_LONGEST_JPEG, _LONGEST_WEBP = 65_500, 16_383  # pixels a side


def jpeg(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Compress as JPEG (4:2:0) at `quality` 1-100 and decompress; in parts what is longer than the format can hold."""
    return _in_parts(lambda part: _decoded(jpeg_bytes(part, quality)), image, _LONGEST_JPEG)


def webp(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Compress as lossy WebP at `quality` 1-100 and decompress; in parts what is longer than the format can hold."""

    def coded(part: np.ndarray) -> np.ndarray:
        bgr = cv2.cvtColor(part, cv2.COLOR_RGB2BGR)
        return _decoded(cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, int(quality)])[1])

    return _in_parts(coded, image, _LONGEST_WEBP)


def h264(image: np.ndarray, *, crf: int) -> np.ndarray:
    """Compress as one frame of H.264 video of constant rate factor `crf`, and decode."""
    # 4:2:0 needs even sides: what is odd is repeated at the edge and cut off again.
    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = even.shape[0], even.shape[1], "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency", "x264-params": "log-level=-1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    packets = [*encoder.encode(frame.reformat(format="yuv420p", threads=1)), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [shown for packet in packets for shown in decoder.decode(packet)] + list(decoder.decode(None))
    return np.ascontiguousarray(frames[0].to_ndarray(format="rgb24", threads=1)[:height, :width])


def _decoded(file: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _in_parts(coded: Callable[[np.ndarray], np.ndarray], image: np.ndarray, longest: int) -> np.ndarray:
    for axis in (0, 1):
        if image.shape[axis] > longest:
            halves = np.array_split(image, 2, axis)
            return np.concatenate([_in_parts(coded, np.ascontiguousarray(half), longest) for half in halves], axis)
    return coded(image)
