"""From a map of proposals to a list of forged segments.

Shapes: `D` durations (rows of a map), `T` frames of the network, `n` frames of the clip. Candidates are float K×3,
[confidence, start, end].

Source: Cai et al. 2022 and 2023, and their code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from ddl_d2.errors import ConfigError
from ddl_d2.utils.segments import soft_nms

DECODES = ("exact", "published")
MODALITIES = ("fusion", "video", "audio")
CLIP_SCORES = ("proposal", "frames")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How segments and the clip's score are read from what the network gives.

    Attributes:
        decode: "exact": row d is the proposal [b, b + durations[d]] that it was trained as; "published": one frame
            shorter, and the shortest row is left out, as BA-TFD+'s code does.
        alpha, t1, t2: of `utils.segments.soft_nms`.
        max_segments: the most segments of a clip.
        modality: the map that is decoded: "fusion", "video" or "audio".
        clip_score: P(fake) of a clip is its highest "proposal", or the highest of its "frames".
        window_overlap: the share of a window that the next one shows again, for clips longer than the network.
    """

    decode: str = "exact"
    alpha: float = 0.7234
    t1: float = 0.1968
    t2: float = 0.4123
    max_segments: int = 100
    modality: str = "fusion"
    clip_score: str = "proposal"
    window_overlap: float = 0.5

    def __post_init__(self) -> None:
        choices = {"DECODE": DECODES, "MODALITY": MODALITIES, "CLIP_SCORE": CLIP_SCORES}
        for key, allowed in choices.items():
            if (value := getattr(self, key.lower())) not in allowed:
                raise ConfigError(f"TEST.TEMPORAL.{key} is '{value}': it must be one of {', '.join(allowed)}")
        if not 0 <= self.window_overlap < 1:
            raise ConfigError(f"TEST.TEMPORAL.WINDOW_OVERLAP is {self.window_overlap}: it must be in [0, 1)")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> DecodeOptions:
        """Gather the values from TEST.TEMPORAL."""
        keys = cfg.TEST.TEMPORAL
        return cls(
            decode=keys.DECODE,
            alpha=keys.ALPHA,
            t1=keys.T1,
            t2=keys.T2,
            max_segments=keys.MAX_SEGMENTS,
            modality=keys.MODALITY,
            clip_score=keys.CLIP_SCORE,
            window_overlap=keys.WINDOW_OVERLAP,
        )

    def suppressed(self, candidates: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
        """Return the segments that soft-NMS keeps of candidates; `unit`: seconds that a distance of 1 lasts."""
        return soft_nms(
            candidates,
            alpha=self.alpha,
            t1=self.t1,
            t2=self.t2,
            unit=unit,
            limit=self.max_segments + (self.decode == "published"),
            keep_last=self.decode == "exact",
        )


def candidates_of_map(
    proposal_map: NDArray[np.floating], durations: list[int], frames: int, *, decode: str = "exact"
) -> NDArray[np.float64]:
    """List the proposals of a map that lie within the clip, by start and then by duration.

    Args:
        proposal_map: D×T in [0, 1].
        durations: of the rows, frames.
        frames: how many of T belong to the clip.
        decode: as in `DecodeOptions`.

    Returns:
        float64 K×3, [confidence, start, end] in frames of the network.
    """
    lengths = np.array(durations, dtype=np.int64)
    first = 0
    if decode == "published":
        lengths, first = lengths - 1, 1
    starts = np.arange(proposal_map.shape[1])
    start, row = (grid.ravel() for grid in np.meshgrid(starts, np.arange(len(lengths)), indexing="ij"))
    end = start + lengths[row]
    fits = (end <= frames) & (row >= first)
    start, row, end = start[fits], row[fits], end[fits]
    return np.stack([proposal_map[row, start].astype(np.float64), start, end], axis=1)
