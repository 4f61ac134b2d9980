"""Loupe's segmentor: a query decoder on a pyramid of tokens, told how likely the image is fake.

Shapes: `B` images, `C` channels of the pixel decoder.
"""

from __future__ import annotations

from torch import Tensor, nn

from ddl_d2.modeling.backbone.tokens import Tokens
from ddl_d2.modeling.loupe.pyramid import SimplePyramid
from ddl_d2.modeling.mask2former.head import QueryDecoderHead
from ddl_d2.modeling.mask2former.query_decoder import QueryPredictions


class Condition(nn.Module):
    """One vector an image, between that of a real one and that of a fake: y · fake + (1 - y) · real."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.real_and_fake = nn.Embedding(2, dim)
        nn.init.normal_(self.real_and_fake.weight, std=0.02)

    def forward(self, fake: Tensor) -> Tensor:
        """Map y, float B in [0, 1], to B×C."""
        vectors = self.real_and_fake.weight
        return fake[:, None] * vectors[1] + (1 - fake)[:, None] * vectors[0]


class LoupeSegmentor(nn.Module):
    """Pyramid, pixel decoder with a conditional step, query decoder."""

    def __init__(self, *, pyramid: SimplePyramid, head: QueryDecoderHead, condition: Condition | None) -> None:
        """Put the parts together.

        Args:
            pyramid: of the tokens' map.
            head: with a conditional pixel decoder if there is a `condition`.
            condition: None: the decoder is not told (the paper's ablation "without conditional queries").
        """
        super().__init__()
        self.pyramid = pyramid
        self.head = head
        self.condition = condition

    def forward(self, tokens: Tokens, fake: Tensor | None = None) -> QueryPredictions:
        """Compute all prediction sets.

        Args:
            tokens: of the images.
            fake: how likely each is fake, float B in [0, 1]; None leaves the conditional step out.
        """
        told = None if self.condition is None or fake is None else self.condition(fake)
        return self.head.predict(self.pyramid(tokens.map()), told)
