"""The layers of the query decoder; parameter names are those of the published checkpoints.

Shapes: `B` images, `Q` queries, `S` places of one level, `C` channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddl_d2.layers.linear import linear


class Attention(nn.Module):
    """Multi-head attention with projected queries, keys and values; parameters named as in `nn.MultiheadAttention`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend: queries B×Q×C, keys and values B×S×C, additive mask B×1×Q×S -> B×Q×C."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        return self.out_proj(_attend(q, k, v, mask).transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend by scaled dot products; on CPUs in fp32, where the backward pass is three times faster than in bf16."""
    if q.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask if mask is None else mask.to(q.dtype))


class CrossAttentionLayer(nn.Module):
    """Attention of the queries to one level of the memory; residual, then LayerNorm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.multihead_attn = Attention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, query_position: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Update queries B×Q×C by keys and values B×S×C, where the additive mask B×1×Q×S allows it."""
        return self.norm(x + self.multihead_attn(x + query_position, key, value, mask))


class SelfAttentionLayer(nn.Module):
    """Attention of the queries to each other; residual, then LayerNorm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, query_position: Tensor) -> Tensor:
        """Update queries B×Q×C by each other."""
        key = x + query_position
        return self.norm(x + self.self_attn(key, key, x))


class FeedForwardLayer(nn.Module):
    """Two linear layers with a ReLU between; residual, then LayerNorm."""

    def __init__(self, dim: int, dim_feedforward: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm = nn.LayerNorm(dim)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Update each of B×Q×C by itself."""
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, dims: list[int]) -> None:
        """Make the layers; `dims` are the channels before the first and after each."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map …×C to …×(the last of `dims`)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
