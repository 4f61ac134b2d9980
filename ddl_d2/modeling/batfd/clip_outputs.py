"""What a clip model's network gives, and the predictions that are made of it.

Shapes: `B` clips, `T` frames of the network, `n` frames of a clip, `D` durations (rows of a map), `F` features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddl_d2.modeling.batfd.decoding import DecodeOptions, candidates_of_map
from ddl_d2.modeling.batfd.windows import averaged_curves

Curves = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class ClipOutputs:
    """What the network gives for a batch; groups are "fusion", "video", "audio", modalities the last two.

    Attributes:
        features: {modality: float B×F×T}.
        logits: {modality: float B×1×T}, of "this frame is forged".
        maps: {group: {name: float B×D×T in [0, 1]}}.
        curves: {group: (start, end)}, float B×T in [0, 1]; empty without a boundary generator.
        hidden: {modality: float B×C×T}, of the boundary generator; likewise.
    """

    features: dict[str, Tensor]
    logits: dict[str, Tensor]
    maps: dict[str, dict[str, Tensor]]
    curves: dict[str, Curves]
    hidden: dict[str, Tensor]

    def mean_map(self, group: str) -> Tensor:
        """Return the mean of a group's maps, B×D×T."""
        return torch.stack(list(self.maps[group].values())).mean(dim=0)
