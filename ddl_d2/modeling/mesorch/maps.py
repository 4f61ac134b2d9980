"""Heads that make maps of one scale from features of several, and a gate that weighs the maps (Mesorch, AAAI 2025).

In the published network, both have convolutions that follow each other without an activation between. Such a chain is
one convolution, whose weights are computed from theirs in each forward pass: parameters, results and gradients are the
published network's, at less work (the gate's falls to three fifths) and without its widest maps.

Shapes: `B` images, `C` channels, `M` maps, `H, W` pixels, `h, w` places of stride 4.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn


class MapHead(nn.Module):
    """Head that makes a map of logits at stride 4 from one feature.

    Transposed convolutions, none followed by an activation, walk down the encoder's channels, each doubling the
    resolution, and a 1 × 1 convolution ends in one channel.
    """

    def __init__(self, channels: list[int]) -> None:
        """Make the convolutions.

        Args:
            channels: of the feature, then of the encoder's finer features down to stride 4: [768, 384, 192, 96]
                upsamples a feature of stride 32 three times, [96] a feature of stride 4 not at all.
        """
        super().__init__()
        steps = (nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1) for a, b in pairwise(channels))
        self.upsample = nn.Sequential(*steps)
        self.to_map = nn.Conv2d(channels[-1], 1, kernel_size=1)

    def forward(self, feature: Tensor) -> Tensor:
        """Make the map, B×1×h×w, of B×C×(h/2ⁿ)×(w/2ⁿ), where n is one less than there are `channels`."""
        if not self.upsample:
            return self.to_map(feature)
        layers: Any = self.upsample  # mypy takes any part of a Sequential for a bare Module
        *steps, last = layers
        for step in steps:
            feature = step(feature)
        with torch.autocast(feature.device.type, enabled=False):
            mix = self.to_map.weight.flatten(1)
            weight = torch.einsum("icyx,oc->ioyx", last.weight, mix)
            bias = self.to_map.get_parameter("bias") + mix @ last.bias
        return F.conv_transpose2d(feature, weight, bias, stride=2, padding=1)


class MapGate(nn.Module):
    """Gate that weighs the maps at each place, from the image and both halves of its frequencies."""

    def __init__(self, *, channels: int = 192, num_maps: int) -> None:
        """Make the convolutions.

        Args:
            channels: inside; 192 in the published network.
            num_maps: M.
        """
        super().__init__()
        self.stem = nn.Conv2d(9, channels, kernel_size=7, stride=2, padding=3)
        self.block = nn.Sequential(
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.Conv2d(channels, 4 * channels, kernel_size=1),
            nn.Conv2d(4 * channels, channels, kernel_size=1),
            nn.GELU(),
        )
        self.to_weights = nn.Conv2d(channels, num_maps, kernel_size=7, stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weights, fp32 B×M×H/4×W/4, positive and of sum 1 over the maps, of B×9×H×W."""
        x = self.stem(x)
        logits = self.to_weights(x + self._block(x))
        return torch.softmax(logits.float(), dim=1)

    def _block(self, x: Tensor) -> Tensor:
        """Run `self.block`, its three convolutions as one."""
        layers: Any = self.block  # mypy takes any part of a Sequential for a bare Module
        norm, spatial, widen, narrow, activation = layers
        with torch.autocast(x.device.type, enabled=False):
            wide, mix = widen.weight.flatten(1), narrow.weight.flatten(1)
            weight = torch.einsum("oc,ciyx->oiyx", mix @ wide, spatial.weight)
            bias = narrow.bias + mix @ (widen.bias + wide @ spatial.bias)
        return activation(F.conv2d(norm(x), weight.contiguous(memory_format=torch.channels_last), bias, padding=1))
