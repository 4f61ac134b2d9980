"""Layers over time that know which steps are padding, as UMMAFormer has them.

Shapes: `B` clips, `C` channels, `T` steps, `S` steps that are attended to; a mask is bool B×1×T, True on the clip.

Source: ActionFormer (Zhang et al. 2022) and UMMAFormer (Zhang et al. 2023). Names of parameters are those of
UMMAFormer's checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

_PADDED = -1e4
_DROP_PATH = 0.1


class MaskedConv(nn.Module):
    """A convolution whose output is 0 on padding."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(before, after, kernel, stride, kernel // 2, groups=groups, bias=bias)
        if bias:
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the convolution of B×C×T, and the mask of its output."""
        mask = mask[..., :: self.stride]
        return self.conv(x) * mask, mask


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of B×C×T."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalized."""
        normed = F.layer_norm(x.transpose(1, 2), x.shape[1:2], self.weight.flatten(), self.bias.flatten())
        return normed.transpose(1, 2)


class ScaledPath(nn.Module):
    """A residual branch times a factor for each channel, tiny at the start; left out at random in training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, 1), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled x."""
        return stochastic_depth(x * self.scale, _DROP_PATH, "row", self.training)


class MaskedAttention(nn.Module):
    """Attention over time with depthwise convolutions before the projections, within a window or global."""

    def __init__(self, channels: int, heads: int, *, window: int, stride: int) -> None:
        """Make the layers.

        Args:
            channels: C.
            heads: of attention.
            window: steps that a query sees, odd, itself in the middle; 0: all.
            stride: of queries, keys and values.
        """
        super().__init__()
        self.heads, self.reach = heads, window // 2
        self.query_conv, self.key_conv, self.value_conv = (
            MaskedConv(channels, channels, 3, stride=stride, groups=channels, bias=False) for _ in range(3)
        )
        self.query_norm, self.key_norm, self.value_norm = (ChannelNorm(channels) for _ in range(3))
        self.key = nn.Conv1d(channels, channels, 1)
        self.query = nn.Conv1d(channels, channels, 1)
        self.value = nn.Conv1d(channels, channels, 1)
        self.proj = nn.Conv1d(channels, channels, 1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the queries see, B×C×T, and its mask; queries, keys and values have the same steps."""
        q, mask_out = self.query_conv(query, mask)
        k, _ = self.key_conv(key, mask)
        v, _ = self.value_conv(value, mask)
        q, k, v = self.query(self.query_norm(q)), self.key(self.key_norm(k)), self.value(self.value_norm(v))
        steps = q.shape[-1]
        q, k, v = (x.unflatten(1, (self.heads, -1)).transpose(2, 3) for x in (q, k, v))
        bias = torch.zeros(mask_out.shape[0], 1, steps, steps, device=q.device)
        bias = bias.masked_fill(~mask_out[:, :, None, :], _PADDED)
        if self.reach:
            place = torch.arange(steps, device=q.device)
            far = (place[:, None] - place).abs() > self.reach
            bias = bias.masked_fill(far, -torch.inf)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(seen.transpose(2, 3).flatten(1, 2) * mask_out) * mask_out, mask_out


class _Block(nn.Module):
    """What the blocks below share: a residual branch of attention was added; now the feed-forward one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln2 = ChannelNorm(channels)
        self.mlp = nn.Sequential(
            nn.Conv1d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Identity(),
            nn.Conv1d(4 * channels, channels, 1),
        )
        self.drop_path_attn = ScaledPath(channels)
        self.drop_path_mlp = ScaledPath(channels)

    def finished(self, skip: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        x = skip * mask + self.drop_path_attn(seen)
        return x + self.drop_path_mlp(self.mlp(self.ln2(x)) * mask)


class SelfBlock(_Block):
    """A transformer's layer over one sequence, which it may halve."""

    def __init__(self, channels: int, heads: int, *, window: int, stride: int = 1) -> None:
        super().__init__(channels)
        self.ln1 = ChannelNorm(channels)
        self.attn = MaskedAttention(channels, heads, window=window, stride=stride)
        self.pool_skip = nn.MaxPool1d(3, stride, padding=1) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return B×C×(T / stride) and its mask."""
        normed = self.ln1(x)
        seen, mask = self.attn(normed, normed, normed, mask)
        return self.finished(self.pool_skip(x), seen, mask), mask


class CrossBlock(_Block):
    """A transformer's layer in which one sequence attends to others of the same length."""

    def __init__(self, channels: int, heads: int, *, window: int) -> None:
        super().__init__(channels)
        self.lnq = ChannelNorm(channels)
        self.lnk = ChannelNorm(channels)
        self.lnv = ChannelNorm(channels)
        self.attn = MaskedAttention(channels, heads, window=window, stride=1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return B×C×T."""
        seen, mask = self.attn(self.lnq(query), self.lnk(key), self.lnv(value), mask)
        return self.finished(query, seen, mask)
