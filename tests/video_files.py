"""Tiny videos for tests, whose frames can be told apart by their gray value."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def gray_of(index: int) -> int:
    """The gray value of frame `index` of `write_video`, up to 30 frames."""
    return 16 + 8 * index


def write_video(
    path: Path,
    frames: int = 8,
    *,
    size: tuple[int, int] = (64, 64),
    codec: str = "mpeg4",
    times: list[int] | None = None,
    **options: str,
) -> Path:
    """Gray frames of (height, width); `times` in 1/100 s, default 25 a second; `options` of the encoder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for index in range(frames):
            image = np.full((*size, 3), gray_of(index), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = times[index] if times else 4 * index, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_mask_video(path: Path, frames: int = 8, *, size: tuple[int, int] = (64, 64)) -> Path:
    """White on the left half in every frame, black on the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        image = np.zeros((*size, 3), np.uint8)
        image[:, : size[1] // 2] = 255
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with an audio stream only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux([*stream.encode(silence), *stream.encode(None)])
    return path
