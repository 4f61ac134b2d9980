"""Tiny videos for tests, whose frames can be told apart by their gray value."""

from __future__ import annotations

import struct
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
    container_options: dict[str, str] | None = None,
    noise: bool = False,
    **options: str,
) -> Path:
    """Write gray frames.

    Args:
        path: of the file; its suffix says which kind.
        frames: how many.
        size: (height, width).
        codec: the encoder.
        times: in 1/100 s, default 25 a second.
        container_options: of the file.
        noise: on every second line, so that the file is larger than its tables.
        options: of the encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for index in range(frames):
            image = np.full((*size, 3), gray_of(index), np.uint8)
            if noise:
                image[1::2] = rng.integers(0, 256, image[1::2].shape)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = times[index] if times else 4 * index, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_dropped(path: Path, frames: int = 12, dropped: tuple[int, ...] = (3, 7, 8)) -> Path:
    """An AVI whose camera dropped frames: their places in the table are there, without a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuvj420p"
        for index in range(frames):
            if index not in dropped:
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), gray_of(index), np.uint8), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_trimmed(path: Path, source: Path, lead: int) -> Path:
    """A copy of an mp4 whose first `lead` frames an edit list cuts away: they are stored and not shown."""
    with av.open(str(source)) as whole, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.pts -= round(lead / 25 / packet.time_base)
                packet.dts -= round(lead / 25 / packet.time_base)
                packet.stream = stream
                container.mux(packet)
    return path


def write_broadcast(path: Path, source: Path, lead: int) -> Path:
    """A copy of a video without its first `lead` packets, as a recording that starts between two keyframes."""
    with av.open(str(source)) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if packet.size and number >= lead:
                packet.stream = stream
                container.mux(packet)
    return path


def cut_off(path: Path, share: float = 0.6) -> Path:
    """Leave only the first part of a file, as a download that stopped."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
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


# (a, b, c, d), and where the upper left corner of what is stored is seen.
MATRICES = {
    "as stored": ((1, 0, 0, 1), "upper left"),
    "a quarter turn clockwise": ((0, 1, -1, 0), "upper right"),
    "a half turn": ((-1, 0, 0, -1), "lower right"),
    "a quarter turn back": ((0, -1, 1, 0), "lower left"),
    "mirrored, as by a front camera": ((-1, 0, 0, 1), "upper right"),
    "upside down": ((1, 0, 0, -1), "lower left"),
    "mirrored and turned": ((0, 1, 1, 0), "upper left"),
    "mirrored and turned back": ((0, -1, -1, 0), "lower right"),
}


def turn_video(path: Path, turn: str) -> None:
    """Set the display matrix of an mp4's track (fixed point 16.16, its rows a b u, c d v, x y w)."""
    data = bytearray(path.read_bytes())
    one = 1 << 16
    a, b, c, d = (value * one for value in MATRICES[turn][0])
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
