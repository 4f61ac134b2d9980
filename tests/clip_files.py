"""Tiny clips with sound for tests: frames are told apart by their gray value, sound by its tone and where it begins."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.video_files import gray_of


def tone(seconds: float, rate: int, *, hertz: float = 440.0, start: float = 0.0, level: float = 0.5) -> np.ndarray:
    """Silence until `start`, then a sine: float32 (n,)."""
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * times) * (times >= start)).astype(np.float32)


def write_talk(
    path: Path,
    *,
    frames: int = 10,
    times: list[float] | None = None,
    size: tuple[int, int] = (64, 64),
    codec: str = "mpeg4",
    sound: np.ndarray | None = None,
    sound_rate: int = 44100,
    sound_codec: str = "aac",
    sound_start: float = 0.0,
) -> Path:
    """Write gray frames and sound, each where its time stamps put it.

    Args:
        path: of the file; its suffix says which kind.
        frames: how many.
        times: of each frame, seconds; by default 25 a second.
        size: (height, width).
        codec: of the frames.
        sound: float32 C×n; None for a file without sound.
        sound_rate: its samples a second.
        sound_codec: of the sound.
        sound_start: when it begins, seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=25)
        picture.height, picture.width = size
        picture.pix_fmt = "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        heard = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(sound)]
            heard = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
        for index in range(frames):
            image = np.full((*size, 3), gray_of(index % 30), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (times[index] if times else index / 25)), Fraction(1, 1000)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if heard is not None and sound is not None:
            form = heard.codec_context.format.name
            samples = np.ascontiguousarray(sound)
            if form.startswith("s16"):
                samples = (samples * 32767).astype(np.int16)
            if not form.endswith("p"):
                samples = np.ascontiguousarray(samples.T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(samples, format=form, layout=layout)
            frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
            frame.pts = round(sound_start * sound_rate)
            container.mux([*heard.encode(frame), *heard.encode(None)])
    return path
