"""Multi-scale deformable attention pixel decoder (Cheng et al., Mask2Former, arXiv 2112.01527, section 3.2).

Shapes: `B` images, `C` channels of the decoder, `L` levels that attend (coarse to fine: strides 32, 16, 8),
`S` positions of all levels together, `H, W` pixels of the finest map (stride 4). Parameter names are those of the
published checkpoints.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.ms_deform_attn_layer import MSDeformAttn
from ddl_d2.layers.position_encoding import sine_position_encoding
from ddl_d2.modeling.mask2former.attention import Attention
from ddl_d2.utils.transfer import on_device


class Levels(NamedTuple):
    """What the sizes of the levels say, for all images and layers.

    Attributes:
        shapes: int64 L×2, (height, width). On the CPU, like `starts`, whatever the maps are on: the op reads them there
            without waiting for a GPU.
        starts: int64 L, where each begins in S.
        scale: float32 L×2, 1 / (width, height).
        reference: float32 1×S×L×2, the center (x, y) of each position in [0, 1].
    """

    shapes: Tensor
    starts: Tensor
    scale: Tensor
    reference: Tensor


def levels_of(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Levels:
    """Make what L sizes (height, width) say, once for each that is met: a copy to a GPU waits for it."""
    # While a graph is exported, sizes are symbols, which are not remembered.
    return _levels_of(sizes, device) if torch.compiler.is_exporting() else _remembered_levels(sizes, device)


def _levels_of(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Levels:
    counts = [height * width for height, width in sizes]
    with torch.inference_mode(False):  # inference tensors would be of no use to a later training step
        reference = torch.cat([_cell_centers(height, width, device) for height, width in sizes])
        return Levels(
            shapes=torch.tensor(sizes, dtype=torch.int64),
            starts=torch.tensor([sum(counts[:i]) for i in range(len(counts))], dtype=torch.int64),
            scale=1 / on_device([(width, height) for height, width in sizes], device, torch.float32),
            reference=reference[None, :, None, :].expand(-1, -1, len(sizes), -1),
        )


_remembered_levels = functools.lru_cache(maxsize=32)(_levels_of)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a two-layer perceptron, each with a residual and a LayerNorm after it.

    With `conditional` a step of Loupe's comes between them: a vector of each image attends to all positions, and what
    it finds is added to each of them.
    """

    def __init__(
        self, *, dim: int, dim_feedforward: int, num_levels: int, num_heads: int, num_points: int, conditional: bool
    ) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, num_levels=num_levels, num_heads=num_heads, num_points=num_points)
        self.norm1 = nn.LayerNorm(dim)
        if conditional:
            self.condition_attn = Attention(dim, num_heads)
            self.condition_norm = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor, position: Tensor, levels: Levels, condition: Tensor | None = None) -> Tensor:
        """Update `x`, B×S×C, from `position`, B×S×C, and `condition`, B×1×C; None leaves its step out."""
        reference = levels.reference.expand(x.shape[0], -1, -1, -1)
        attended = self.self_attn(x + position, reference, x, levels.shapes, levels.starts, level_scale=levels.scale)
        x = self.norm1(x + attended)
        if condition is not None:
            x = self.condition_norm(x + self.condition_attn(condition, x, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DeformableEncoder(nn.Module):
    """A stack of `DeformableEncoderLayer`s, whose arguments it takes."""

    def __init__(self, *, num_layers: int, conditional: bool, **layer: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableEncoderLayer(conditional=conditional, **layer) for _ in range(num_layers))


class DeformableTransformer(nn.Module):
    """The encoder over all levels jointly, flattened, with position and level embeddings."""

    def __init__(self, *, dim: int, num_levels: int, conditional: bool, **encoder: int) -> None:
        super().__init__()
        self.encoder = DeformableEncoder(dim=dim, num_levels=num_levels, conditional=conditional, **encoder)
        self.level_embed = nn.Parameter(torch.empty(num_levels, dim).normal_())

    def forward(self, maps: list[Tensor], condition: Tensor | None = None) -> list[Tensor]:
        """Attend over L maps B×C×h×w, coarse to fine, and `condition`, B×1×C; returns maps of the same shapes."""
        device, batch, dim = maps[0].device, maps[0].shape[0], maps[0].shape[1]
        sizes = tuple((m.shape[2], m.shape[3]) for m in maps)
        flat = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        position = torch.cat(
            [
                sine_position_encoding(h, w, dim, device=device).flatten(1).t() + self.level_embed[level]
                for level, (h, w) in enumerate(sizes)
            ]
        ).expand(batch, -1, -1)
        levels = levels_of(sizes, device)
        for layer in self.encoder.layers:
            flat = layer(flat, position, levels, condition)
        parts = flat.split([h * w for h, w in sizes], dim=1)
        return [x.transpose(1, 2).reshape(batch, dim, h, w) for x, (h, w) in zip(parts, sizes, strict=True)]


def _cell_centers(height: int, width: int, device: torch.device) -> Tensor:
    """Return the centers (x, y) of a map's cells in [0, 1], row by row: (H·W)×2."""
    y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y), dim=-1).flatten(0, 1)


class MSDeformAttnPixelDecoder(nn.Module):
    """Decoder of a backbone's features into mask features at the finest stride, and maps for the query decoder."""

    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        in_features: list[str],
        deformable_in_features: list[str],
        conv_dim: int,
        mask_dim: int,
        norm: str,
        num_layers: int,
        num_heads: int,
        num_points: int,
        dim_feedforward: int,
        conditional: bool = False,
    ) -> None:
        """Make the layers.

        Args:
            input_shape: the backbone's outputs by name.
            in_features: all names that are read.
            deformable_in_features: those that attend; the others are fused top-down by FPN steps (lateral 1×1, add,
                3×3).
            conv_dim: C.
            mask_dim: channels of the mask features.
            norm: normalization of the FPN's convolutions, in Detectron2's words.
            num_layers: of the deformable encoder.
            num_heads: of the deformable encoder.
            num_points: of the deformable encoder.
            dim_feedforward: of the deformable encoder.
            conditional: each layer of the deformable encoder can be told something of an image (Loupe).

        Raises:
            ConfigError: none of the features attends.
        """
        super().__init__()
        by_stride = sorted(in_features, key=lambda name: input_shape[name].stride)
        coarse_to_fine = [name for name in reversed(by_stride) if name in deformable_in_features]
        fpn = [name for name in reversed(by_stride) if name not in deformable_in_features]
        if not coarse_to_fine:
            raise ConfigError(
                f"none of IN_FEATURES {in_features} is in DEFORMABLE_IN_FEATURES {deformable_in_features}"
            )
        self.deformable_features, self.fpn_features = coarse_to_fine, fpn

        projections = [nn.Conv2d(input_shape[name].channels, conv_dim, 1) for name in coarse_to_fine]
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight, gain=1)
            nn.init.zeros_(projection.get_parameter("bias"))
        self.input_proj = nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(32, conv_dim)) for conv in projections)
        self.transformer = DeformableTransformer(
            dim=conv_dim,
            num_levels=len(coarse_to_fine),
            num_layers=num_layers,
            num_heads=num_heads,
            num_points=num_points,
            dim_feedforward=dim_feedforward,
            conditional=conditional,
        )
        for i, name in enumerate(reversed(fpn), start=1):
            self._add_fpn_step(i, input_shape[name].channels, conv_dim, norm)
        self.mask_features = Conv2d(conv_dim, mask_dim, 1)
        weight_init.c2_xavier_fill(self.mask_features)

    def _add_fpn_step(self, index: int, in_channels: int, conv_dim: int, norm: str) -> None:
        # Published names: adapter_1/layer_1 belong to the finest map, 2 to the next.
        bias = norm == ""
        lateral = Conv2d(in_channels, conv_dim, 1, bias=bias, norm=get_norm(norm, conv_dim))
        output = Conv2d(conv_dim, conv_dim, 3, padding=1, bias=bias, norm=get_norm(norm, conv_dim), activation=F.relu)
        weight_init.c2_xavier_fill(lateral)
        weight_init.c2_xavier_fill(output)
        self.add_module(f"adapter_{index}", lateral)
        self.add_module(f"layer_{index}", output)

    def forward(self, features: dict[str, Tensor], condition: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Decode {name: B×c×h×w} into mask features B×mask_dim×H×W and L maps B×C×h×w, coarse to fine.

        A conditional decoder is told `condition`, B×C, of each image; with None it leaves that step out.

        Under float16 autocast this part runs in fp32, as published: its range is too small for the encoder's sums.
        bfloat16 has fp32's range and is let through; locations and attention weights stay fp32 inside the op.
        """
        device = next(iter(features.values())).device.type
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
            with torch.autocast(device, enabled=False):
                return self._decode({name: feature.float() for name, feature in features.items()}, condition)
        return self._decode(features, condition)

    def _decode(self, features: dict[str, Tensor], condition: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        projected = [
            projection(features[name])
            for projection, name in zip(self.input_proj, self.deformable_features, strict=True)
        ]
        levels = self.transformer(projected, None if condition is None else condition[:, None])
        finest = levels[-1]
        for index, name in zip(range(len(self.fpn_features), 0, -1), self.fpn_features, strict=True):
            lateral = self.get_submodule(f"adapter_{index}")(features[name])
            top_down = F.interpolate(finest, size=lateral.shape[-2:], mode="bilinear", align_corners=False)
            finest = self.get_submodule(f"layer_{index}")(lateral + top_down)
        return self.mask_features(finest), levels
