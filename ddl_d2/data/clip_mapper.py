"""The mapper of clips: dataset dict -> what a system sees of picture and sound.

Shapes: `t` frames, `S` the side they are resized to, `n` samples of sound, `N` segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from ddl_d2.data.forge_spans import shrunk_for_forging
from ddl_d2.errors import ConfigError, DatasetError
from ddl_d2.faces.crop import Window, cut
from ddl_d2.faces.face import FaceFinder
from ddl_d2.faces.track import clip_window
from ddl_d2.forging.spans import ForgedClip
from ddl_d2.io.clip import AUDIO_CHANNELS, AUDIO_RATE, FPS, MAX_SECONDS, Clip, read_clip
from ddl_d2.io.video import count_frames, iter_chosen_frames, spread_frames
from ddl_d2.utils.limits import MAX_PIXELS
from ddl_d2.utils.segments import union

# (real clip, row) -> the clip to train on, and which spans of it are forged.
ForgeClip = Callable[[Clip, Mapping[str, Any]], ForgedClip]

RESIZING = {"bicubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST, "area": cv2.INTER_AREA}
SEGMENT_KINDS = ("segments", "video_segments", "audio_segments")
_LOOKS = 5  # frames in which the face is looked for


class ClipMapper:
    """Reads and packs a clip; whether it is padded or stretched is the model's affair.

    The result holds everything of the dataset dict, and

    - `frames`: uint8 RGB tensor, 3×t×S×S,
    - `audio`: float32 tensor (n,), mono, in [-1, 1], n = round(t / fps · rate); silence if there is none,
    - `has_audio`: whether there is any,
    - `num_frames`: t, `fps`, and `duration`: t / fps, seconds,
    - `segments`, `video_segments`, `audio_segments`: float32 tensors N×2 of [start, end] in frames, as far as they are
      known (none are for a fake without them; all are empty for a real clip),

    and in training `is_fake` for what is shown: a part of a clip in which nothing is forged is real.

    Args:
        is_train: whether clips are cut, forged and mirrored, and must have a label.
        fps: frames a second.
        size: S, pixels.
        resize: a key of `RESIZING`.
        audio_rate: samples of sound a second.
        channel: "mean" of the sound's channels, or the "first".
        max_seconds: longer clips are refused.
        train_seconds: training clips are cut to so many seconds anywhere; 0 for never.
        max_pixels: the most pixels a frame may have.
        finder: finds the face that clips are cut to; None to show frames whole.
        face_margin: see `faces.track.clip_window`.
        flip_prob: how likely the picture of a training clip is mirrored.
        forge: called on each real training clip.

    Raises:
        ConfigError: an unknown `resize` or `channel`, or a probability that is none.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        fps: float = FPS,
        size: int = 96,
        resize: str = "bicubic",
        audio_rate: int = AUDIO_RATE,
        channel: str = "mean",
        max_seconds: float = MAX_SECONDS,
        train_seconds: float = 0.0,
        max_pixels: int = MAX_PIXELS,
        finder: FaceFinder | None = None,
        face_margin: float = 0.4,
        flip_prob: float = 0.0,
        forge: ForgeClip | None = None,
    ) -> None:
        if resize not in RESIZING:
            raise ConfigError(f"INPUT.CLIP.RESIZE {resize!r} is not one of {', '.join(RESIZING)}")
        if channel not in AUDIO_CHANNELS:
            raise ConfigError(f"INPUT.CLIP.AUDIO_CHANNEL {channel!r} is not one of {', '.join(AUDIO_CHANNELS)}")
        if not 0 <= flip_prob <= 1:
            raise ConfigError(f"INPUT.CLIP.FLIP_PROB is {flip_prob}: it must be in [0, 1]")
        self.is_train, self.fps, self.size, self.interpolation = is_train, float(fps), size, RESIZING[resize]
        self.audio_rate, self.channel = audio_rate, channel
        self.max_seconds, self.train_seconds, self.max_pixels = max_seconds, train_seconds, max_pixels
        self.finder, self.face_margin = finder, face_margin
        self.flip_prob, self.forge = flip_prob, forge

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, **overrides: Any) -> dict[str, Any]:
        """Read the constructor's arguments from INPUT.CLIP; `overrides` (the finder, what forges) replace them."""
        clip = cfg.INPUT.CLIP
        return {
            "is_train": is_train,
            "fps": clip.FPS,
            "size": clip.SIZE,
            "resize": clip.RESIZE,
            "audio_rate": clip.AUDIO_RATE,
            "channel": clip.AUDIO_CHANNEL,
            "max_seconds": clip.MAX_SECONDS,
            "train_seconds": clip.TRAIN_SECONDS,
            "max_pixels": cfg.INPUT.MAX_PIXELS,
            "face_margin": clip.FACE_MARGIN,
            "flip_prob": clip.FLIP_PROB,
            **overrides,
        }

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Map one dataset dict.

        Raises:
            ImageReadError: the clip cannot be read, or not forged.
            DatasetError: a training row has no label.
        """
        row = dict(dataset_dict)
        if self.is_train and row.get("is_fake") not in (0, 1):
            raise DatasetError(f"{row['file_name']}: has no real/fake label (is_fake), which training needs")
        clip, known = self.read(row["file_name"]), self._segments(row)
        if self.is_train:
            clip, known = self._cut(clip, known, row)
            clip, known = self._forged(clip, known, row)
            if np.random.uniform() < self.flip_prob:
                clip = Clip(clip.frames[:, :, ::-1], clip.audio, clip.has_audio, clip.fps, clip.audio_rate)
        return self.pack(row, clip, known)

    def read(self, path: str) -> Clip:
        """Read a clip, cut to its face if asked for, at the size that it is forged at. Raises ImageReadError."""
        window = None if self.finder is None else self._face_window(path, self.finder)
        forged = self.is_train and self.forge is not None

        def fit(frame: np.ndarray) -> np.ndarray:
            frame = frame if window is None else cut(frame, window)
            return shrunk_for_forging(frame) if forged else self._resized(frame)

        return read_clip(
            path,
            fps=self.fps,
            audio_rate=self.audio_rate,
            channel=self.channel,
            fit=fit,
            max_seconds=self.max_seconds,
            max_pixels=self.max_pixels,
        )

    def pack(self, row: Mapping[str, Any], clip: Clip, segments: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Put a clip into a row: everything that the class names."""
        frames = clip.frames
        if frames.shape[1:3] != (self.size, self.size):  # else no second copy: half an hour of clip is 1.2 GB
            frames = np.stack([self._resized(frame) for frame in frames])
        packed = {key: value for key, value in row.items() if key not in SEGMENT_KINDS}
        packed |= {kind: torch.from_numpy(found.astype(np.float32)) for kind, found in segments.items()}
        return packed | {
            "frames": torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, 3, 0))),
            "audio": torch.from_numpy(np.ascontiguousarray(clip.audio, dtype=np.float32)),
            "has_audio": clip.has_audio,
            "num_frames": len(frames),
            "fps": clip.fps,
            "duration": clip.duration,
        }

    def _segments(self, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What is known of the forged segments, N×2 in frames."""
        if row.get("is_fake") == 0:
            return {kind: np.zeros((0, 2)) for kind in SEGMENT_KINDS}
        found = {kind: row[kind] for kind in SEGMENT_KINDS if kind in row}
        return {kind: _array(segments) * self.fps for kind, segments in found.items()}

    def _cut(
        self, clip: Clip, segments: dict[str, np.ndarray], row: dict[str, Any]
    ) -> tuple[Clip, dict[str, np.ndarray]]:
        """A part of a long clip, and what is forged in it; a part in which nothing is, is real."""
        wanted = round(self.train_seconds * self.fps)
        if not wanted or len(clip.frames) <= wanted:
            return clip, segments
        start = np.random.randint(len(clip.frames) - wanted + 1)
        moved = {kind: np.clip(found - start, 0, wanted) for kind, found in segments.items()}
        inside = {kind: found[found[:, 1] > found[:, 0]] for kind, found in moved.items()}
        if "segments" in inside and not len(inside["segments"]):
            row["is_fake"] = 0
        return clip.part(start, start + wanted), inside

    def _forged(
        self, clip: Clip, segments: dict[str, np.ndarray], row: dict[str, Any]
    ) -> tuple[Clip, dict[str, np.ndarray]]:
        """A real clip, forged if the mapper forges; fakes as they are."""
        if self.forge is None or row["is_fake"]:
            return clip, segments
        made = self.forge(clip, row)
        spans = {"video_segments": made.video_spans, "audio_segments": made.audio_spans}
        known = {kind: _array(found) for kind, found in spans.items()}
        row["is_fake"] = int(any(len(found) for found in known.values()))
        return made.clip, {"segments": _array(union(made.video_spans, made.audio_spans)), **known}

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        return cv2.resize(frame, (self.size, self.size), interpolation=self.interpolation)

    def _face_window(self, path: str, finder: FaceFinder) -> Window | None:
        """The square around the largest face of a few frames; None, for whole frames, where none is found."""
        chosen = spread_frames(count_frames(path, max_pixels=self.max_pixels), _LOOKS).tolist()
        found, shape = [], (0, 0)
        for _, _, frame in iter_chosen_frames(path, chosen, max_pixels=self.max_pixels):
            shape = (frame.shape[0], frame.shape[1])
            faces = finder(frame)
            found += [max(faces, key=lambda face: face.width)] if faces else []
        return clip_window(found, shape, margin=self.face_margin) if found else None


def _array(segments: Any) -> np.ndarray:
    """Segments as float64 N×2."""
    return np.array(segments, dtype=np.float64).reshape(-1, 2)
