"""The fusion of what picture and sound say of the same proposals or frames.

Shapes: `B` clips, `D` durations (rows of a map; 1 for a curve), `T` frames, `C` channels of the features.

Source: Cai et al. 2022 (BA-TFD). Names of parameters are those of the published checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn


class MapFusion(nn.Module):
    """Averages the maps of two modalities, with weights for each cell that both modalities' features decide."""

    def __init__(self, *, rows: int, video_features: int, audio_features: int) -> None:
        super().__init__()
        self.a_attn_block = _Gate(rows, audio_features, video_features)
        self.v_attn_block = _Gate(rows, video_features, audio_features)

    def forward(self, video: Tensor, audio: Tensor, video_map: Tensor, audio_map: Tensor) -> Tensor:
        """Return the fused map, B×D×T, of features B×C×T and the two maps B×D×T."""
        video_weight = self.v_attn_block(video_map, video, audio)
        audio_weight = self.a_attn_block(audio_map, audio, video)
        return (video_weight * video_map + audio_weight * audio_map) / (video_weight + audio_weight)


class _Gate(nn.Module):
    def __init__(self, rows: int, own: int, other: int) -> None:
        super().__init__()
        self.attn_from_self_features = _PointConv(own, rows)
        self.attn_from_another_features = _PointConv(other, rows)
        self.attn_from_bm = _PointConv(rows, rows)

    def forward(self, own_map: Tensor, own: Tensor, other: Tensor) -> Tensor:
        total = self.attn_from_bm(own_map) + self.attn_from_self_features(own) + self.attn_from_another_features(other)
        return (total / 3).float().sigmoid()


class _PointConv(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
