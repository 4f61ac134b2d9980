"""From a mapper's rows to the tensors that the network takes, and to what it shall learn of them.

Shapes: `B` clips, `t` frames of a clip, `T` frames of the network, `S` pixels along a frame's side.

Row, for predicting:

    frames        uint8 RGB, 3×t×H×W, at `fps`
    audio         float32, samples at 16 kHz, mono
    num_frames    int, t
    fps           float (25)
    has_audio     bool (default True): False: the clip has no sound, and `audio` is silence

Row, for training, besides:

    is_fake                          int, 0 real or 1 fake
    segments                         float K×2, the forged segments in frames; absent if they are not known
    video_segments, audio_segments   the same of one modality; absent if they are not known
    image_id                         str, named in errors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ddl_d2.layers.log_mel import SAMPLES_PER_FRAME, log_mel
from ddl_d2.modeling.batfd.audio_encoder import stretched_sound
from ddl_d2.modeling.batfd.targets import boundary_curves, frame_labels, stretched, target_map
from ddl_d2.modeling.batfd.video_encoder import fit_frames, nearest_frames
from ddl_d2.utils.transfer import to_device

FITS = ("pad", "stretch")
MODALITIES = ("video", "audio")
GROUPS = ("fusion", *MODALITIES)
"""What has maps: both modalities together, and each."""
SEGMENT_KEYS = {"fusion": "segments", "video": "video_segments", "audio": "audio_segments"}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ClipFit:
    """How a clip is brought to the network's number of frames.

    Attributes:
        frames: T.
        size: S.
        fit: "pad": zeros are appended (and what lies behind T is cut); "stretch": time is stretched or shrunk, frames
            to the nearest, sound linearly.
    """

    frames: int
    size: int
    fit: str = "pad"

    def used_frames(self, row: Row) -> int:
        """Return how many of the network's frames belong to a clip."""
        return self.frames if self.fit == "stretch" else min(int(row["num_frames"]), self.frames)

    def valid(self, rows: list[Row], device: torch.device) -> Tensor:
        """Return float B×T: 1 on the frames of the clips."""
        used = torch.tensor([self.used_frames(row) for row in rows], device=device)
        return (torch.arange(self.frames, device=device) < used[:, None]).float()

    def segments(self, row: Row, group: str = "fusion") -> Tensor:
        """Return a group's forged segments in frames of the network, float64 K×2; none where they are not known."""
        found = known_segments(row, group)
        found = torch.zeros(0, 2, dtype=torch.float64) if found is None else found
        return found * self.frames / max(int(row["num_frames"]), 1) if self.fit == "stretch" else found

    def video(self, row: Row, device: torch.device) -> Tensor:
        """Return a clip's frames, float 3×T×S×S in [0, 1]."""
        frames = row["frames"]
        if self.fit == "stretch":
            frames = frames[:, nearest_frames(frames.shape[1], self.frames)]
        fitted = fit_frames(to_device(frames[:, : self.frames], device), self.size)
        return F.pad(fitted, (0, 0, 0, 0, 0, self.frames - fitted.shape[1]))

    def sound(self, row: Row, device: torch.device) -> Tensor:
        """Return a clip's sound, float32 640·T samples."""
        wanted = SAMPLES_PER_FRAME * self.frames
        samples = to_device(row["audio"], device).float()
        if self.fit == "stretch":
            return stretched_sound(samples, wanted)
        return F.pad(samples[:wanted], (0, max(wanted - len(samples), 0)))

    def batch(self, rows: list[Row], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the frames, float B×3×T×S×S, and the log-mel spectrograms, float B×64×4T."""
        video = torch.stack([self.video(row, device) for row in rows])
        return video, log_mel(torch.stack([self.sound(row, device) for row in rows]))


@dataclass(frozen=True, kw_only=True)
class ClipTruth:
    """What a batch teaches.

    Attributes:
        maps: {group: float B×D×T}.
        labels: {"video" or "audio": float B×T}, how forged each frame is.
        curves: {group: (start, end)}, each float B×T; empty where they are not learned.
        known: {group: float B}, 1 where the segments are known and the modality is there.
        valid: float B×T, 1 on the frames of the clip.
        real: float B, 1 where nothing is forged.
    """

    maps: dict[str, Tensor]
    labels: dict[str, Tensor]
    curves: dict[str, tuple[Tensor, Tensor]]
    known: dict[str, Tensor]
    valid: Tensor
    real: Tensor


def has_sound(row: Row) -> float:
    """Return 1 if a clip has sound, else 0."""
    return float(bool(row.get("has_audio", True)))


def is_known(row: Row, group: str) -> float:
    """Return 1 if the forged segments of a group are known and the clip has the modality, else 0."""
    heard = has_sound(row) if group == "audio" else 1.0
    return heard * float(known_segments(row, group) is not None)


def known_segments(row: Row, group: str) -> Tensor | None:
    """Return a group's forged segments, float64 K×2 in frames; None if they are not known. A real clip has none."""
    found = row.get(SEGMENT_KEYS[group])
    if found is not None:
        return torch.as_tensor(found, dtype=torch.float64).reshape(-1, 2)
    return None if row["is_fake"] else torch.zeros(0, 2, dtype=torch.float64)


def clip_truth(
    rows: list[Row], fit: ClipFit, durations: list[int], *, with_curves: bool, device: torch.device
) -> ClipTruth:
    """Make what a batch of rows teaches; unknown segments give zeros, and `known` says so."""

    def stacked(arrays: list[NDArray[np.float32]]) -> Tensor:
        return to_device(torch.from_numpy(np.stack(arrays)), device)

    def curves(group: str) -> tuple[Tensor, Tensor]:
        both = [boundary_curves(fit.segments(r, group).numpy(), fit.used_frames(r), fit.frames) for r in rows]
        return stacked([start for start, _ in both]), stacked([end for _, end in both])

    return ClipTruth(
        maps={
            group: stacked(
                [target_map(fit.segments(r, group).numpy(), fit.used_frames(r), fit.frames, durations) for r in rows]
            )
            for group in GROUPS
        },
        labels={group: stacked([_frame_labels(r, group, fit) for r in rows]) for group in MODALITIES},
        curves={group: curves(group) for group in GROUPS} if with_curves else {},
        known={group: torch.tensor([is_known(r, group) for r in rows], device=device) for group in GROUPS},
        valid=fit.valid(rows, device),
        real=torch.tensor([1.0 - bool(row["is_fake"]) for row in rows], device=device),
    )


def _frame_labels(row: Row, group: str, fit: ClipFit) -> NDArray[np.float32]:
    """Return how forged each of the network's frames is; zeros where it is not known."""
    found = known_segments(row, group)
    curve = frame_labels(np.zeros((0, 2)) if found is None else found.numpy(), int(row["num_frames"]))
    if fit.fit == "stretch":
        return stretched(curve, fit.frames)
    return np.pad(curve[: fit.frames], (0, max(fit.frames - len(curve), 0)))
