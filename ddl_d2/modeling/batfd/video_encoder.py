"""What turns the frames of a clip into one vector for each of them.

Shapes: `B` clips, `T` frames, `S` pixels along a frame's side, `F` features.

Sources: MViTv2 (Li et al. 2022) in the variants of BA-TFD+ (Cai et al. 2023), through torchvision's `MViT`; C3D as in
BA-TFD (Cai et al. 2022). Names of parameters are those of the published checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video import MViT
from torchvision.models.video.mvit import MSBlockConfig

MVIT_DEPTHS = {"mvit_t": (1, 2, 5, 2), "mvit_s": (1, 2, 11, 2), "mvit_b": (2, 3, 16, 3)}
"""Blocks in each of the four stages."""

_MVIT_SIZE = 96
_HEADS = (1, 2, 4, 8)
_CHANNELS = (96, 192, 384, 768)
_KV_STRIDES = (8, 4, 2, 1)


class MViTVideoEncoder(nn.Module):
    """MViTv2 that keeps time: only height and width are pooled."""

    size = _MVIT_SIZE

    def __init__(self, *, depths: tuple[int, int, int, int], frames: int, features: int = 256) -> None:
        """Build it with random weights.

        Args:
            depths: blocks in each stage.
            frames: T; fixed, as there is a table of relative positions in time.
            features: F.
        """
        super().__init__()
        blocks = _block_settings(depths, features)
        self.mvit = MViT(
            spatial_size=(_MVIT_SIZE, _MVIT_SIZE),
            temporal_size=frames,
            block_setting=blocks,
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
            stochastic_depth_prob=0.2,
            patch_embed_kernel=(3, 15, 15),
            patch_embed_stride=(1, 12, 12),
            patch_embed_padding=(1, 3, 3),
        )
        del self.mvit.head

    def forward(self, video: Tensor) -> Tensor:
        """Return B×F×T of the frames, float B×3×T×96×96 in [0, 1]."""
        mvit = self.mvit
        x = mvit.pos_encoding(mvit.conv_proj(video).flatten(2).transpose(1, 2))
        grid = (mvit.pos_encoding.temporal_size, *mvit.pos_encoding.spatial_size)
        for block in mvit.blocks:
            x, grid = block(x, grid)
        return mvit.norm(x)[:, 1:].transpose(1, 2)


def _block_settings(depths: tuple[int, int, int, int], features: int) -> list[MSBlockConfig]:
    """Return what torchvision builds the blocks from; the last gives `features` channels."""
    stages = [stage for stage, depth in enumerate(depths) for _ in range(depth)]
    channels = [_CHANNELS[0], *(_CHANNELS[stage] for stage in stages)]
    channels[-1] = features
    settings = []
    for position, (before, after) in enumerate(pairwise(channels)):
        stage = stages[position]
        first = stage > 0 and stages[position - 1] != stage
        q, kv = (2 if first else 1), _KV_STRIDES[stage]
        settings.append(
            MSBlockConfig(
                num_heads=_HEADS[stage],
                input_channels=before,
                output_channels=after,
                kernel_q=[3, 3, 3],
                kernel_kv=[3, 3, 3],
                stride_q=[1, q, q],
                stride_kv=[1, kv, kv],
            )
        )
    return settings


class ConvUnit(nn.Module):
    """A convolution and LeakyReLU (slope 0.01), named as in the published checkpoints."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of x."""
        return F.leaky_relu(self.conv(x))


class C3DVideoEncoder(nn.Module):
    """BA-TFD's 3-D convolutions: small, without attention; frames see three neighbors at each of eight layers."""

    size = 96

    def __init__(self, *, features: int = 256) -> None:
        super().__init__()
        self.block0 = nn.Sequential(_conv3d(3, 64), _conv3d(64, 64), _spatial_pool(3))
        self.block1 = nn.Sequential(_conv3d(64, 96), _conv3d(96, 96), _spatial_pool(2))
        self.block2 = nn.Sequential(_conv3d(96, 128), _conv3d(128, 128), _spatial_pool(2))
        self.block3 = nn.Sequential(
            _conv3d(128, 128),
            _spatial_pool(2),
            _conv3d(128, 128),
            _spatial_pool(2),
            FlattenPlaces(),
            ConvUnit(nn.Conv1d(512, features, 1)),
        )

    def forward(self, video: Tensor) -> Tensor:
        """Return B×F×T of the frames, float B×3×T×96×96 in [0, 1]."""
        return self.block3(self.block2(self.block1(self.block0(video))))


class FlattenPlaces(nn.Module):
    """B×C×T×h×w -> B×(C·h·w)×T."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the places of a frame among its channels."""
        return x.permute(0, 1, 3, 4, 2).flatten(1, 3)


def _conv3d(before: int, after: int) -> ConvUnit:
    return ConvUnit(nn.Conv3d(before, after, 3, padding=1))


def _spatial_pool(side: int) -> nn.MaxPool3d:
    return nn.MaxPool3d((1, side, side))


def fit_frames(frames: Tensor, size: int) -> Tensor:
    """Resize the frames of a clip to squares, bicubic without antialiasing, as BA-TFD+ does.

    Args:
        frames: uint8 3×t×H×W.
        size: S; 0: they stay as they are.

    Returns:
        float32 3×t×S×S; 0 to 1, or a little beyond where the resize overshoots.
    """
    frames = frames.float() / 255
    if size == 0 or tuple(frames.shape[-2:]) == (size, size):
        return frames
    resized = F.interpolate(frames.transpose(0, 1), (size, size), mode="bicubic", align_corners=False)
    return resized.transpose(0, 1)


def nearest_frames(count: int, wanted: int) -> Tensor:
    """Return which of `count` frames each of `wanted` frames is when a clip is stretched; int64."""
    scale = torch.tensor(count / wanted, dtype=torch.float32)
    return (torch.arange(wanted) * scale).floor().long().clamp(max=count - 1)
