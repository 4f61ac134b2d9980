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

from ddl_d2.layers.linear import batched_product
from ddl_d2.layers.position_encoding import sine_position_encoding
from ddl_d2.modeling.mask2former.attention import MLP, CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer


@dataclass
class QueryPredictions:
    """The decoder's output, before any mask is painted.

    A query's mask logits are the product of its embedding with the mask features (`masks`), so that only those masks
    are computed that are needed.

    Attributes:
        logits: class logits B×Q×(K+1) of each prediction set; the last column is "no object".
        mask_embeddings: B×Q×C of each prediction set.
        mask_features: B×C×H×W.
    """

    logits: list[Tensor]
    mask_embeddings: list[Tensor]
    mask_features: Tensor

    def masks(self, layer: int = -1) -> Tensor:
        """Compute the mask logits, B×Q×H×W, of one prediction set."""
        pixels = self.mask_features.flatten(2).transpose(1, 2)
        return batched_product(self.mask_embeddings[layer], pixels).unflatten(2, self.mask_features.shape[2:])


class QueryDecoder(nn.Module):
    """Decoder with masked attention: learned queries attend to the levels in turn (coarse, middle, fine, again).

    Each attends only where its own last mask says "forged".
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
    ) -> None:
        """Make the layers.

        Args:
            in_channels: channels of the levels.
            hidden_dim: channels of the queries.
            mask_dim: C, channels of the mask features.
            num_classes: K.
            num_levels: L.
            num_queries: Q.
            num_heads: of each attention; divides `hidden_dim`.
            dim_feedforward: hidden channels of the feed-forward layers.
            num_layers: N - 1.
        """
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
        """Decode L maps B×c×h×w (coarse to fine) and mask features B×C×H×W into N prediction sets."""
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
            turn = i % self.num_levels
            mask = _attention_mask(predictions.mask_embeddings[-1], guides[turn])
            x = cross_attention(x, query_position, keys[turn], values[turn], mask)
            x = feed_forward(self_attention(x, query_position))
            self._predict(x, predictions)
        return predictions

    def _predict(self, x: Tensor, predictions: QueryPredictions) -> None:
        x = self.decoder_norm(x)
        predictions.logits.append(self.class_embed(x))
        predictions.mask_embeddings.append(self.mask_embed(x))


@torch.no_grad()
def _attention_mask(embeddings: Tensor, guide: Tensor) -> Tensor:
    """Make the additive mask B×1×Q×S: -inf where the query's last mask is below one half, 0 elsewhere.

    A query whose mask is empty on this level attends everywhere (without that, its softmax is undefined).
    """
    blocked = batched_product(embeddings, guide) < 0
    blocked &= ~blocked.all(dim=-1, keepdim=True)
    return torch.zeros(blocked.shape, device=guide.device).masked_fill_(blocked, float("-inf"))[:, None]


def _projection(in_channels: int, out_channels: int) -> nn.Conv2d:
    projection = nn.Conv2d(in_channels, out_channels, 1)
    weight_init.c2_xavier_fill(projection)
    return projection
