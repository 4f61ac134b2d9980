"""Loupe's patch-aware classifier: the whole image and each of its patches decide together.

Shapes: `B` images, `N` patches, `C` channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.tokens import Tokens


class ClassLogits(NamedTuple):
    """Logits of "fake".

    Attributes:
        image: B, of what the image's score is made.
        patches: B×N, of each patch; None: patches are not predicted.
        whole: B, from the pooled feature alone; it is supervised through `image` only.
    """

    image: Tensor
    patches: Tensor | None
    whole: Tensor


class PatchAwareClassifier(nn.Module):
    """A perceptron on the pooled feature, another on each patch's token, and a weight for each of their logits."""

    def __init__(self, *, channels: int, num_patches: int, hidden_ratio: float = 2.0, patch_head: bool = True) -> None:
        """Make the layers.

        Args:
            channels: C.
            num_patches: N; each has a weight of its own in the image's logit.
            hidden_ratio: hidden channels over C.
            patch_head: off: the pooled feature alone decides (the paper's ablation "without patch prediction").
        """
        super().__init__()
        self.num_patches = num_patches
        self.global_head = _perceptron(channels, round(channels * hidden_ratio))
        self.patch_head = _perceptron(channels, round(channels * hidden_ratio)) if patch_head else None
        self.fusion = nn.Linear(1 + num_patches, 1, bias=False) if patch_head else None
        if self.fusion is not None:
            nn.init.constant_(self.fusion.weight, 1 / (1 + num_patches))

    def forward(self, tokens: Tokens) -> ClassLogits:
        """Return the logits, fp32.

        Raises:
            ConfigError: the images have another number of patches.
        """
        if tokens.tokens.shape[1] != self.num_patches:
            raise ConfigError(
                f"an image has {tokens.tokens.shape[1]} tokens ({tokens.grid[0]} x {tokens.grid[1]}) and the "
                f"classifier weighs {self.num_patches}: they are of another MODEL.LOUPE.INPUT_SIZE or backbone"
            )
        whole = self.global_head(tokens.pooled).float()
        if self.patch_head is None or self.fusion is None:
            return ClassLogits(image=whole[:, 0], patches=None, whole=whole[:, 0])
        patches = self.patch_head(tokens.tokens).float()[..., 0]
        with torch.autocast(patches.device.type, enabled=False):
            image = self.fusion(torch.cat([whole, patches], dim=1))
        return ClassLogits(image=image[:, 0], patches=patches, whole=whole[:, 0])


def _perceptron(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, 1))
