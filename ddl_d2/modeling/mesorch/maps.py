"""From features of several scales to maps of one, and how much each map counts where (Mesorch, AAAI 2025).

Published, both have convolutions that follow each other without an activation. Such are one convolution: its weights
are made anew from theirs in each forward pass, so that parameters, results and gradients are the published network's at
less work (the gate's falls to three fifths) and without its widest maps.

Shapes: `B` images, `C` channels, `M` maps, `H, W` pixels, `h, w` places of stride 4.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn


class MapHead(nn.Module):
    """One feature as a map of logits at stride 4: transposed convolutions, none followed by an activation, walk down
    the encoder's channels, each doubling the resolution, and a 1 × 1 convolution ends in one channel.

    Args:
        channels: of the feature, then of the encoder's finer features down to stride 4: [768, 384, 192, 96] upsamples
            a feature of stride 32 three times, [96] a feature of stride 4 not at all.
    """

    def __init__(self, channels: list[int]):
        super().__init__()
        steps = (nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1) for a, b in pairwise(channels))
        self.upsample = nn.Sequential(*steps)
        self.to_map = nn.Conv2d(channels[-1], 1, kernel_size=1)

    def forward(self, feature: Tensor) -> Tensor:
        """B×C×(h/2ⁿ)×(w/2ⁿ), n one less than there are `channels` -> B×1×h×w."""
        if not self.upsample:
            return self.to_map(feature)
        *steps, last = self.upsample
        for step in steps:
            feature = step(feature)
        with torch.autocast(feature.device.type, enabled=False):
            mix = self.to_map.weight.flatten(1)
            weight = torch.einsum("icyx,oc->ioyx", last.weight, mix)
            bias = self.to_map.bias + mix @ last.bias
        return F.conv_transpose2d(feature, weight, bias, stride=2, padding=1)


class MapGate(nn.Module):
    """Weights of the maps at each place, from the image and both its halves of frequencies.

    Args:
        channels: inside; published with 192.
        num_maps: M.
    """

    def __init__(self, *, channels: int = 192, num_maps: int):
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
        """B×9×H×W -> B×M×H/4×W/4 in fp32, positive and of sum 1 over the maps."""
        x = self.stem(x)
        logits = self.to_weights(x + self._block(x))
        return torch.softmax(logits.float(), dim=1)

    def _block(self, x: Tensor) -> Tensor:
        """`self.block`, its three convolutions as one."""
        norm, spatial, widen, narrow, activation = self.block
        with torch.autocast(x.device.type, enabled=False):
            wide, mix = widen.weight.flatten(1), narrow.weight.flatten(1)
            weight = torch.einsum("oc,ciyx->oiyx", mix @ wide, spatial.weight)
            bias = narrow.bias + mix @ (widen.bias + wide @ spatial.bias)
        return activation(F.conv2d(norm(x), weight.contiguous(memory_format=torch.channels_last), bias, padding=1))
