"""Clips: the picture of a video at a steady rate, and its sound on the same time axis.

A clip lasts as long as its picture is shown, from the first frame on. What becomes of unlike files:

- variable or other frame rates: frame k is the one on show at the time (k + 1/2) / fps;
- sound at any rate and in any layout: resampled, its channels made one, moved to where its time stamps put it; gaps are
  silence, and so is what is missing at the end; sound beyond the picture is left out;
- no sound: silence, and `has_audio` is False;
- turned phone videos: frames stand upright;
- no picture, a file that was cut off, or damage: refused with an `ImageReadError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddl_d2.io.guard import RefusedError, guard
from ddl_d2.io.open_video import opened, to_rgb
from ddl_d2.utils.limits import MAX_PIXELS

FPS = 25.0
"""Frames a second of a clip, as audio-visual datasets have them."""
AUDIO_RATE = 16000
"""Samples a second of a clip's sound."""
AUDIO_CHANNELS = ("mean", "first")
MAX_SECONDS = 1800.0
"""The longest clip that is read, unless a caller says otherwise."""

_LARGEST_JITTER = 0.05  # seconds between a time stamp and the end of the sound before it that are not a gap

Fit = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Clip:
    """A decoded clip.

    Attributes:
        frames: uint8 t×H×W×3 RGB, t >= 1.
        audio: float32 (n,) in [-1, 1], mono, n = round(t / fps · audio_rate); zeros without sound.
        has_audio: whether there is sound at all.
        fps: frames a second.
        audio_rate: samples a second.
    """

    frames: np.ndarray
    audio: np.ndarray
    has_audio: bool = True
    fps: float = FPS
    audio_rate: int = AUDIO_RATE

    @property
    def duration(self) -> float:
        """Seconds that the clip lasts."""
        return len(self.frames) / self.fps

    def part(self, start: int, end: int) -> Clip:
        """Cut out the frames from `start` until before `end`, with their sound."""
        first, last = (round(frame / self.fps * self.audio_rate) for frame in (start, end))
        return Clip(self.frames[start:end], self.audio[first:last], self.has_audio, self.fps, self.audio_rate)


def read_clip(
    path: str | os.PathLike[str],
    *,
    fps: float = FPS,
    audio_rate: int = AUDIO_RATE,
    channel: str = "mean",
    fit: Fit | None = None,
    max_seconds: float = MAX_SECONDS,
    max_pixels: int = MAX_PIXELS,
) -> Clip:
    """Read a clip whole; the module says what becomes of sound and picture.

    Args:
        path: a video file.
        fps: frames a second of the result.
        audio_rate: samples a second of the result.
        channel: "mean" of the sound's channels, or the "first" alone.
        fit: makes each frame (uint8 H×W×3 RGB) what is kept of it, all of one size, as soon as it is decoded.
        max_seconds: longer clips are refused.
        max_pixels: the most pixels a frame may have.

    Raises:
        ImageReadError: not a readable video, without a picture, or too long.
        ValueError: an unknown `channel`.
    """
    if channel not in AUDIO_CHANNELS:
        raise ValueError(f"channel must be one of {', '.join(AUDIO_CHANNELS)}, not {channel!r}")
    with guard(path):
        with opened(path, max_pixels) as (container, stream):
            frames, start = _read_frames(container, stream, fps, fit, max_seconds, max_pixels)
        samples = round(len(frames) / fps * audio_rate)
        with opened(path, max_pixels) as (container, _):
            audio, has_audio = _read_sound(container, start, samples, audio_rate, channel)
    return Clip(frames, audio, has_audio, fps, audio_rate)


def read_sound(
    path: str | os.PathLike[str],
    *,
    seconds: float,
    audio_rate: int = AUDIO_RATE,
    channel: str = "mean",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray | None:
    """Read the sound of a clip alone, from its first frame on, as `read_clip` does.

    Args:
        path: a video file.
        seconds: how much of it, at most.
        audio_rate: samples a second of the result.
        channel: see `read_clip`.
        max_pixels: the most pixels a frame may have.

    Returns:
        float32 (n,) in [-1, 1], until the last sample that is not silence; None if there is no sound.

    Raises:
        ImageReadError: not a readable video, or without a picture.
    """
    with guard(path):
        with opened(path, max_pixels) as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise RefusedError("no frame could be decoded")
            start = float(first.time or 0.0)
        with opened(path, max_pixels) as (container, _):
            audio, has_audio = _read_sound(container, start, round(seconds * audio_rate), audio_rate, channel)
    return np.trim_zeros(audio, "b") if has_audio else None


def _read_frames(
    container: Any, stream: Any, fps: float, fit: Fit | None, max_seconds: float, max_pixels: int
) -> tuple[np.ndarray, float]:
    """The frames on show at the middles of the steps of 1 / fps, and the time of the first frame in the file."""
    rate = float(stream.average_rate or fps)
    frames: list[np.ndarray] = []
    start = shown = 0.0
    held: Any = None

    def keep(until: float, least: int = 0) -> None:
        """Repeat the frame held as often as it is on show."""
        image: np.ndarray | None = None
        while len(frames) < least or (len(frames) + 0.5) / fps < until:
            if len(frames) >= max_seconds * fps:
                raise RefusedError(f"lasts longer than {max_seconds:g} s (INPUT.CLIP.MAX_SECONDS)")
            if image is None:
                image = to_rgb(held, max_pixels)
                image = image if fit is None else fit(image)
            frames.append(image)

    for index, frame in enumerate(container.decode(stream)):
        time = float(frame.time) if frame.time is not None else index / rate
        if held is None:
            start = time
        else:
            keep(time - start)
        held, shown = frame, max(time - start, shown)
    if held is None:
        raise RefusedError("no frame could be decoded")
    lasts = float(held.duration * held.time_base) if held.duration and held.time_base else 1 / rate
    keep(shown + lasts, least=1)
    return np.stack(frames), start


def _read_sound(container: Any, start: float, samples: int, rate: int, channel: str) -> tuple[np.ndarray, bool]:
    """The sound from the time `start` of the file on, and whether there is any."""
    audio = np.zeros(samples, np.float32)
    if not container.streams.audio:
        return audio, False
    import av

    position = heard = 0
    end = None  # time at which the sound so far ends
    kind = resampler = None

    def put(frames: list[Any]) -> None:
        nonlocal position, heard
        for frame in frames:
            values = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
            values = values[:, 0] if channel == "first" else values.mean(axis=1)
            first, last = max(position, 0), min(position + len(values), samples)
            if first < last:
                audio[first:last] = values[first - position : last - position]
                heard += last - first
            position += len(values)

    stream = container.streams.audio[0]
    if stream.codec_context is None:  # PyAV 18.0 ends the process where it is asked to decode this
        raise RefusedError("its sound is of a kind that cannot be decoded")
    for frame in container.decode(stream):
        time = float(frame.time) if frame.time is not None else (start if end is None else end)
        if (time - start) * rate >= samples:
            break
        this = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or this != kind or end is None or abs(time - end) > _LARGEST_JITTER:
            put(resampler.resample(None) if resampler else [])
            # Interleaved, as PyAV 18 counts nine planes in eight separate channels and reads past their end.
            kind, resampler = this, av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
            position = round((time - start) * rate)
            end = time
        frame.pts = None  # the resampler counts on: small jitter is none of its affair
        put(resampler.resample(frame))
        end += frame.samples / frame.sample_rate
    put(resampler.resample(None) if resampler else [])
    return np.clip(np.nan_to_num(audio, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1), heard > 0
