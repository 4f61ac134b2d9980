"""Maps of how well each proposal of a clip fits a forged segment, from one modality's features.

Shapes: `B` clips, `C` channels of the features, `D` durations, `T` frames, `N` = D·T cells of a map.

Sources: BMN (Lin et al. 2019); the proposal relation block of BSN++ (Su et al. 2021), as BA-TFD+ (Cai et al. 2023)
uses both. Names of parameters are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddl_d2.layers.boundary_matching import BoundaryMatching
from ddl_d2.modeling.batfd.video_encoder import ConvUnit

MAPS = ("p", "c", "pc")
"""The three maps of the relation block: by position attention, by channel attention, by both."""
ONE_MAP = ("map",)
"""The one map of a module without it."""


def mean_map(maps: dict[str, Tensor]) -> Tensor:
    """Return the mean of a group's maps, B×D×T, which segments are decoded from."""
    return torch.stack(list(maps.values())).mean(dim=0)


class FrameClassifier(nn.Module):
    """The logit of "forged" of each frame, linear in its features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lr_layer = _Named(nn.Conv1d(features, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return B×1×T logits of B×C×T."""
        return self.lr_layer(features)


class BoundaryModule(nn.Module):
    """From features to the maps of one modality."""

    def __init__(
        self, *, features: int, matching: BoundaryMatching, dims: tuple[int, int], relation: bool, published: bool
    ) -> None:
        """Put the parts together.

        Args:
            features: C, the frame logit among them.
            matching: samples the proposals.
            dims: channels of a proposal, and of a cell of the map behind it.
            relation: put the proposal relation block behind it (BA-TFD+), which gives three maps; else there is one.
            published: as in `ChannelAttention`.
        """
        super().__init__()
        wide, narrow = dims
        self.matching = matching
        self.block0 = nn.ModuleList([_Weights(nn.Conv3d(features, wide, (matching.points, 1, 1)))])
        convs: list[nn.Module] = [
            ConvUnit(nn.Conv2d(wide, narrow, 1)),
            ConvUnit(nn.Conv2d(narrow, narrow, 3, padding=1)),
        ]
        if not relation:
            convs.append(_Named(nn.Conv2d(narrow, 1, 1)))
        self.block1 = nn.Sequential(*convs)
        self.proposal_block = RelationBlock(narrow, published=published) if relation else None

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {name: B×D×T in [0, 1]}, names from `MAPS` or `ONE_MAP`, of features B×C×T."""
        cells = self.block1(F.leaky_relu(self.matching(features, *self.block0[0]())))
        if self.proposal_block is None:
            return {"map": cells[:, 0].float().sigmoid()}
        return self.proposal_block(cells)


class RelationBlock(nn.Module):
    """Lets proposals see each other: by their place on the map, and by their channels."""

    def __init__(self, channels: int, *, published: bool) -> None:
        super().__init__()
        self.p_net = PositionAttention(channels)
        self.c_net = ChannelAttention(channels, published=published)
        self.conv0_0 = conv_norm(channels, channels, 3)
        self.conv0_1 = conv_norm(channels, channels, 3)
        self.conv1 = conv_norm(channels, channels, 3)
        self.conv2 = nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1))
        self.conv3 = nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1))
        self.conv4 = conv_norm(channels, channels, 3)
        self.conv5 = nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, cells: Tensor) -> dict[str, Tensor]:
        """Return the three maps, B×D×T in [0, 1], of cells B×C×D×T."""
        position = self.conv1(self.p_net(self.conv0_0(cells)))
        channel = self.conv4(self.c_net(self.conv0_1(cells)))
        logits = self.conv2(position), self.conv5(channel), self.conv3(position + channel)
        return {name: x[:, 0].float().sigmoid() for name, x in zip(MAPS, logits, strict=True)}


class PositionAttention(nn.Module):
    """Attention of all cells to a quarter of them, without scaling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Sequential(conv_norm(channels, channels, 1), nn.MaxPool2d(2))
        self.theta = conv_norm(channels, channels, 1)
        self.phi = nn.Sequential(conv_norm(channels, channels, 1), nn.MaxPool2d(2))
        self.W = conv_norm(channels, channels, 1, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B×C×D×T) plus what its cells see."""
        queries, keys, values = (part(x).flatten(2).transpose(1, 2).float() for part in (self.theta, self.phi, self.g))
        # The unscaled logits are too large for half precision.
        with torch.autocast(x.device.type, enabled=False):
            seen = F.scaled_dot_product_attention(queries[:, None], keys[:, None], values[:, None], scale=1.0)[:, 0]
        return self.W(seen.transpose(1, 2).reshape(x.shape)) + x


class ChannelAttention(nn.Module):
    """Attention between channels over all cells, without scaling."""

    def __init__(self, channels: int, *, published: bool) -> None:
        """Make the projections.

        Args:
            channels: C.
            published: read the result, N×C, as if it were C×N, as BA-TFD+'s code does; weights that were trained with
                that need it.
        """
        super().__init__()
        self.published = published
        self.g = conv_norm(channels, channels, 1)
        self.theta = conv_norm(channels, channels, 1)
        self.phi = conv_norm(channels, channels, 1)
        self.W = conv_norm(channels, channels, 1, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B×C×D×T) plus what its channels see."""
        theta, phi, values = (part(x).flatten(2).float() for part in (self.theta, self.phi, self.g))
        # The logits are sums over D·T cells: far too large for half precision.
        with torch.autocast(x.device.type, enabled=False):
            weights = (theta @ phi.transpose(1, 2)).softmax(dim=-1)
            seen = (weights @ values).transpose(1, 2)  # B × N × C
        if not self.published:
            seen = seen.transpose(1, 2)
        return self.W(seen.reshape(x.shape)) + x


def conv_norm(before: int, after: int, kernel: int, *, activated: bool = True) -> nn.Sequential:
    """Return a convolution with batch normalization and, if `activated`, ReLU; the map keeps its size."""
    layers = [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after)]
    return nn.Sequential(*layers, nn.ReLU()) if activated else nn.Sequential(*layers)


class _Weights(nn.Module):
    """Holds the weights of a convolution that is computed in another way, under their published names."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias."""
        return self.conv.weight, self.conv.bias


class _Named(nn.Module):
    """Holds a convolution under the name `conv`, which it has in the published checkpoints."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x."""
        return self.conv(x)
