"""Query decoder with masked attention (Cheng et al., Mask2Former, arXiv 2112.01527, section 3.2).

Shapes: `B` images, `Q` queries, `C` channels, `K` classes, `L` levels of memory (coarse to fine), `N` prediction
sets (one before the first layer and one after each), `H, W` pixels of the mask features. Parameter names are those of
the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddl_d2.layers.linear import batched_product, linear
from ddl_d2.layers.position_encoding import sine_position_encoding


@dataclass
class QueryPredictions:
    """What the decoder says, before any mask is painted.

    A query's mask logits are the product of its embedding with the mask features (`masks`), so that only the masks
    somebody needs are ever computed.
    """

    logits: list[Tensor]
    """N × [B×Q×(K+1)] class logits; the last column is "no object"."""
    mask_embeddings: list[Tensor]
    """N × [B×Q×C]."""
    mask_features: Tensor
    """B×C×H×W."""

    def masks(self, layer: int = -1) -> Tensor:
        """Mask logits B×Q×H×W of one prediction set."""
        pixels = self.mask_features.flatten(2).transpose(1, 2)
        return batched_product(self.mask_embeddings[layer], pixels).unflatten(2, self.mask_features.shape[2:])


class Attention(nn.Module):
    """Multi-head attention with projected queries, keys and values; parameters named as in `nn.MultiheadAttention`."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """B×Q×C, B×S×C, B×S×C, additive mask B×1×Q×S -> B×Q×C."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        return self.out_proj(_attend(q, k, v, mask).transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; on CPUs always in fp32, where its backward is three times faster than in bf16."""
    if q.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask if mask is None else mask.to(q.dtype))


class CrossAttentionLayer(nn.Module):
    """Queries look at one level of the memory; residual, then LayerNorm."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.multihead_attn = Attention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, query_position: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return self.norm(x + self.multihead_attn(x + query_position, key, value, mask))


class SelfAttentionLayer(nn.Module):
    """Queries look at each other; residual, then LayerNorm."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, query_position: Tensor) -> Tensor:
        key = x + query_position
        return self.norm(x + self.self_attn(key, key, x))


class FeedForwardLayer(nn.Module):
    """Two linear layers with a ReLU between; residual, then LayerNorm."""

    def __init__(self, dim: int, dim_feedforward: int):
        super().__init__()
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm = nn.LayerNorm(dim)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, dims: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims, dims[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class QueryDecoder(nn.Module):
    """`Q` learned queries attend to the levels in turn (coarse, middle, fine, again), each only where its own last mask
    says "forged".

    Args:
        in_channels: channels of the levels; hidden_dim: `C`; mask_dim: channels of the mask features.
        num_levels, num_queries, num_heads, dim_feedforward, num_layers: as named. num_classes: `K`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_dim: int,
        mask_dim: int,
        num_classes: int,
        num_levels: int,
        num_queries: int,
        num_heads: int,
        dim_feedforward: int,
        num_layers: int,
    ):
        super().__init__()
        self.num_levels = num_levels
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, num_heads) for _ in range(num_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FeedForwardLayer(hidden_dim, dim_feedforward) for _ in range(num_layers)
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(num_levels, hidden_dim)
        self.input_proj = nn.ModuleList(
            nn.Identity() if in_channels == hidden_dim else _projection(in_channels, hidden_dim)
            for _ in range(num_levels)
        )
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP([hidden_dim, hidden_dim, hidden_dim, mask_dim])

    def forward(self, levels: list[Tensor], mask_features: Tensor) -> QueryPredictions:
        """L maps B×c×h×w (coarse to fine), mask features B×C×H×W -> the N prediction sets."""
        batch = mask_features.shape[0]
        keys, values, guides = [], [], []
        for i, level in enumerate(levels):
            size = level.shape[-2:]
            values.append(self.input_proj[i](level).flatten(2).transpose(1, 2) + self.level_embed.weight[i])
            encoding = sine_position_encoding(size[0], size[1], values[-1].shape[-1], device=level.device)
            keys.append(values[-1] + encoding.flatten(1).t())
            # Resizing masks and multiplying by an embedding are both linear, so the features are resized, once.
            with torch.no_grad():
                guide = F.interpolate(mask_features, size=size, mode="bilinear", align_corners=False)
                guides.append(guide.flatten(2).transpose(1, 2))

        x = self.query_feat.weight.expand(batch, -1, -1)
        query_position = self.query_embed.weight.expand(batch, -1, -1)
        predictions = QueryPredictions([], [], mask_features)
        self._predict(x, predictions)
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross_attention, self_attention, feed_forward) in enumerate(layers):
            level = i % self.num_levels
            mask = _attention_mask(predictions.mask_embeddings[-1], guides[level])
            x = cross_attention(x, query_position, keys[level], values[level], mask)
            x = feed_forward(self_attention(x, query_position))
            self._predict(x, predictions)
        return predictions

    def _predict(self, x: Tensor, predictions: QueryPredictions) -> None:
        x = self.decoder_norm(x)
        predictions.logits.append(self.class_embed(x))
        predictions.mask_embeddings.append(self.mask_embed(x))


@torch.no_grad()
def _attention_mask(embeddings: Tensor, guide: Tensor) -> Tensor:
    """Additive mask B×1×Q×S: -inf where the query's last mask is below one half, 0 elsewhere.

    A query whose mask is empty on this level attends everywhere (without that, its softmax is undefined).
    """
    blocked = batched_product(embeddings, guide) < 0
    blocked &= ~blocked.all(dim=-1, keepdim=True)
    return torch.zeros(blocked.shape, device=guide.device).masked_fill_(blocked, float("-inf"))[:, None]


def _projection(in_channels: int, out_channels: int) -> nn.Conv2d:
    projection = nn.Conv2d(in_channels, out_channels, 1)
    weight_init.c2_xavier_fill(projection)
    return projection
