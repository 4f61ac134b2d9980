"""The features of every proposal of a clip: from T frames to a map of durations by starts.

Shapes: `B` clips, `C` channels, `T` frames, `D` durations (rows of a map), `N` points sampled from a proposal, `K`
output channels. Cell (d, b) of a map is the proposal that starts at frame b and lasts `durations[d]` frames.

Source: boundary-matching layer of BMN (Lin et al. 2019, section 3.2) as BA-TFD+ uses it. Sampling and the
convolution over the N points are both linear: here each frame is projected first (a table of N·T rows), and a proposal
is a weighted sum of at most 2N rows of the table. The matrix of the published layer, T×(N·D·T), is never made.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


def sample_positions(
    frames: int, durations: list[int], points: int, extension: float, *, published: bool = False
) -> NDArray[np.float64]:
    """Say where each proposal is sampled, in frames.

    Args:
        frames: T.
        durations: of each row, frames.
        points: N, spread evenly over the proposal with its context.
        extension: the context on each side, as a share of the proposal's length.
        published: take the proposal's duration for its end, as BA-TFD+'s code does: [b, durations[d]] instead of
            [b, b + durations[d]]. With this, weights that were trained with the published code mean what they did.

    Returns:
        float64 D×T×N; NaN for proposals that do not end before frame T.
    """
    start = np.arange(frames, dtype=np.float64)[None, :]
    lengths = np.array(durations, dtype=np.float64)[:, None]
    length = lengths - start if published else lengths + 0 * start
    first = start - length * extension
    step = length * (1 + 2 * extension) / (points - 1)
    positions = first[..., None] + step[..., None] * np.arange(points)
    positions[start + lengths >= frames] = np.nan
    return positions


class BoundaryMatching(nn.Module):
    """Samples N points of every proposal, linearly between frames, and convolves them to one vector.

    Has no parameters: it is given those of the Conv3d (kernel N×1×1) of the published layer.
    """

    indices: Tensor
    offsets: Tensor
    weights: Tensor

    def __init__(
        self, *, frames: int, durations: list[int], points: int = 10, extension: float = 0.5, published: bool = False
    ) -> None:
        """Lay out which rows of the table each proposal sums.

        Args:
            frames: T.
            durations: of each row of the map, frames.
            points: N.
            extension: the context on each side, as a share of the proposal's length.
            published: as in `sample_positions`; a point that falls on a frame then counts twice, too.
        """
        super().__init__()
        self.frames, self.rows, self.points = frames, len(durations), points
        indices, weights, counts = _sums(
            sample_positions(frames, durations, points, extension, published=published), frames, double=published
        )
        offsets = np.concatenate([[0], counts.cumsum()[:-1]])
        self.register_buffer("indices", torch.from_numpy(indices), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)

    def forward(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the map of proposals.

        Args:
            features: float B×C×T.
            weight: K×C×N×1×1.
            bias: K.

        Returns:
            float32 B×K×D×T; proposals that do not end before T have `bias`.
        """
        by_point = weight[..., 0, 0].permute(2, 0, 1).flatten(0, 1)  # N·K × C
        projected = F.linear(features.transpose(1, 2), by_point)  # B × T × N·K
        maps = []
        for clip in projected:
            table = clip.float().view(self.frames, self.points, -1).transpose(0, 1).flatten(0, 1)  # N·T × K
            cells = F.embedding_bag(self.indices, table, self.offsets, mode="sum", per_sample_weights=self.weights)
            cells = cells if bias is None else cells + bias
            maps.append(cells.T.view(-1, self.rows, self.frames))
        return torch.stack(maps)


def _sums(
    positions: NDArray[np.float64], frames: int, *, double: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the rows of the table that the cells sum, their weights, and how many each of the D·T cells has."""
    inside = (positions >= 0) & (positions <= frames - 1)
    where = np.where(inside, positions, 0)
    below: NDArray[np.int64] = np.floor(where).astype(np.int64)
    above: NDArray[np.int64] = np.ceil(where).astype(np.int64)
    high = where - below
    if double:
        high = np.where(below == above, 1.0, high)
    low = 1 - (where - below)
    table_row = np.arange(positions.shape[-1]) * frames
    rows = np.stack([below + table_row, above + table_row], axis=-1)
    weights = np.stack([low, high], axis=-1)
    used = inside[..., None] & (weights > 0)
    counts: NDArray[np.int64] = used.sum(axis=(-2, -1), dtype=np.int64).ravel()
    return rows[used].astype(np.int64), weights[used].astype(np.float64), counts
