"""Writing videos: H.264 with AAC sound in an MP4, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from ddl_d2.io.atomic import replacing
from ddl_d2.io.clip import AUDIO_RATE, Clip

_TIME_BASE = Fraction(1, 1000)
_ENCODERS = ("libx264", "mpeg4")


class VideoWriter:
    """Write RGB frames, and sound if there is any, as an mp4 (MPEG-4 where the encoder of H.264 is missing).

    A context manager. The file appears under its name when the block ends well, and not at all when it does not.

    Args:
        path: of the file.
        audio: float32 (n,) in [-1, 1], mono, heard from the first frame on; None for a video without sound.
        audio_rate: its samples a second.
        audio_bit_rate: of the encoded sound, bits a second.
        crf: quality of H.264, 0 (lossless) to 51; lower is better and larger.
    """

    def __init__(
        self,
        path: Path,
        *,
        audio: np.ndarray | None = None,
        audio_rate: int = AUDIO_RATE,
        audio_bit_rate: int = 64000,
        crf: int = 23,
    ) -> None:
        self.path, self.crf = path, crf
        self.audio, self.audio_rate, self.audio_bit_rate = audio, audio_rate, audio_bit_rate
        self._place = contextlib.ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._sound: Any = None
        self._start, self._last, self._heard = 0.0, -1, 0

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Append a frame (uint8 H×W×3 RGB) shown at `seconds`; later frames take the size of the first."""
        if self._container is None:
            self._open(frame.shape[1], frame.shape[0], seconds)
        width, height = self._stream.width, self._stream.height
        if frame.shape[:2] != (height, width):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._last = max(self._last + 1, round((seconds - self._start) / _TIME_BASE))
        encoded.pts, encoded.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(encoded))
        # As far as the picture, so that a player finds both side by side.
        self._write_sound(round((seconds - self._start) * self.audio_rate))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            # What goes wrong here is seen by the place, too.
            with self._place:
                if self._container is not None:
                    self._container.mux(self._stream.encode())
                    if self._sound is not None and self.audio is not None:
                        self._write_sound(len(self.audio))
                        self._container.mux(self._sound.encode())
        else:
            self._place.__exit__(kind, error, trace)

    def _open(self, width: int, height: int, seconds: float) -> None:
        encoder = next(name for name in _ENCODERS if name in av.codecs_available)
        temporary = self._place.enter_context(replacing(self.path))
        self._container = self._place.enter_context(av.open(str(temporary), "w", format="mp4"))
        options = {"crf": str(self.crf)} if encoder == "libx264" else {}
        self._stream = self._container.add_stream(encoder, rate=25, options=options)
        self._stream.width, self._stream.height = max(2, width - width % 2), max(2, height - height % 2)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        self._start = seconds
        if self.audio is not None:
            self._sound = self._container.add_stream("aac", rate=self.audio_rate, layout="mono")
            self._sound.bit_rate = self.audio_bit_rate

    def _write_sound(self, end: int) -> None:
        """Encode the samples until before `end` that are not encoded yet."""
        if self._sound is None or self.audio is None or end <= self._heard:
            return
        samples = np.ascontiguousarray(self.audio[None, self._heard : end], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.audio_rate, self._heard, Fraction(1, self.audio_rate)
        self._heard += samples.shape[1]
        self._container.mux(self._sound.encode(frame))


def write_clip(path: str | os.PathLike[str], clip: Clip, *, crf: int = 23, audio_bit_rate: int = 64000) -> None:
    """Write a clip as an mp4, its sound too if it has any; see `VideoWriter`.

    Raises:
        OSError: the file cannot be written.
    """
    audio = clip.audio if clip.has_audio else None
    with VideoWriter(
        Path(path), audio=audio, audio_rate=clip.audio_rate, audio_bit_rate=audio_bit_rate, crf=crf
    ) as writer:
        for number, frame in enumerate(clip.frames):
            writer.write(frame, number / clip.fps)
