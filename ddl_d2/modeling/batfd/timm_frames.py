"""A video encoder that a CPU can train: frozen features of single frames, and a small transformer over them.

Shapes: `B` clips, `T` frames, `S` pixels along a frame's side, `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone

_STAGES = ["res1", "res2", "res3", "res4", "res5"]


class TimmVideoEncoder(nn.Module):
    """Mean and deviation over the places of each stage of a frozen timm model, then layers that see all frames.

    Frames differ from their neighbors by little but the motion, and a forged span by as little: the difference of each
    frame's statistics from the last one's is put beside them.
    """

    size = 0
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        name: str,
        pretrained: str,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        frames: int,
        features: int,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        """Build the model and load its weights.

        Args:
            name: a timm model with five strides.
            pretrained: as of `TimmBackbone`.
            pixel_mean: of R, G, B in [0, 255], which the model's images are reduced by.
            pixel_std: by what the difference is divided.
            frames: T; fixed, as each has a learned position.
            features: F.
            layers: of the transformer.
            dropout: in the transformer, in training.
        """
        super().__init__()
        self.frozen = TimmBackbone(name=name, pretrained=pretrained, out_features=_STAGES)
        self.frozen.requires_grad_(False)
        channels = sum(shape.channels for shape in self.frozen.output_shape().values())
        self.norm = nn.LayerNorm(4 * channels)
        self.project = nn.Linear(4 * channels, features)
        self.context = FrameTransformer(frames=frames, features=features, layers=layers, dropout=dropout)
        self.register_buffer("mean", torch.tensor(pixel_mean).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(pixel_std).view(3, 1, 1) / 255, persistent=False)

    def train(self, mode: bool = True) -> TimmVideoEncoder:
        """Set the mode; the frozen model keeps its statistics either way."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, video: Tensor) -> Tensor:
        """Return B×F×T of the frames, float B×3×T×S×S in [0, 1], S a multiple of 32."""
        clips, _, frames = video.shape[:3]
        statistics = self._statistics(video.transpose(1, 2).flatten(0, 1)).view(clips, frames, -1)
        change = statistics - torch.cat([statistics[:, :1], statistics[:, :-1]], dim=1)
        return self.context(self.project(self.norm(torch.cat([statistics, change], dim=-1)))).transpose(1, 2)

    @torch.no_grad()
    def _statistics(self, images: Tensor) -> Tensor:
        stages = self.frozen((images - self.mean) / self.std).values()
        found = [torch.std_mean(x, dim=(2, 3), correction=0) for x in stages]
        return torch.cat([part for deviation, mean in found for part in (mean, deviation)], dim=1)


class FrameTransformer(nn.Module):
    """Layers of self-attention over frames with learned positions."""

    def __init__(self, *, frames: int, features: int, layers: int, dropout: float, heads: int = 4) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, frames, features))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)
        layer = nn.TransformerEncoderLayer(
            features, heads, 2 * features, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return B×T×F of B×T×F."""
        return self.layers(x + self.pos_embedding)
