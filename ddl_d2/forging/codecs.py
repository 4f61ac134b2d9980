"""What is left of an image that was compressed and decompressed.

Each function takes an image (uint8 H×W×3 RGB) and returns one of the same kind and size, always the same.
"""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np

from ddl_d2.io.image import jpeg_bytes

_LONGEST_WEBP = 16_383


def jpeg(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Compress as JPEG (4:2:0) at `quality` 1-100 and decompress."""
    return _decoded(jpeg_bytes(image, quality))


def webp(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Compress as lossy WebP at `quality` 1-100 and decompress.

    Raises:
        ValueError: more than 16,383 pixels a side.
    """
    if max(image.shape[:2]) > _LONGEST_WEBP:
        raise ValueError(f"an image of shape {image.shape} cannot be written as WebP (16,383 pixels a side at most)")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return _decoded(cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, int(quality)])[1])


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
