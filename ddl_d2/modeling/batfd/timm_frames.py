"""A video encoder that a CPU can train: frozen features of single frames, and a small transformer over them.

Shapes: `B` clips, `T` frames, `S` pixels along a frame's side, `F` features, `K` statistics of a frame.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddl_d2.modeling.backbone.timm_backbone import TimmBackbone

_STAGES = ["res1", "res2", "res3", "res4", "res5"]
_GRID = 6
_AT_ONCE = 64  # frames in the frozen model, so that memory does not grow with the clip


class TimmVideoEncoder(nn.Module):
    """Statistics of single frames from a frozen timm model, the motion between frames, and layers that see all frames.

    Of each frame: the mean and the deviation over the places of each stage, how they differ from the clip's average and
    from the frame before, and how much each cell of a 6×6 grid moves and changes its motion. A forged span that is
    repeated, reversed or taken from elsewhere shows in the motion more than in any frame.
    """

    size = 0
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        name: str,
        pretrained: str,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        frames: int,
        features: int,
        layers: int = 2,
        dropout: float = 0.0,
        remembered: int = 0,
    ) -> None:
        """Build the model and load its weights.

        Args:
            name: a timm model with five strides.
            pretrained: as of `TimmBackbone`.
            pixel_mean: of R, G, B in [0, 255], which the model's images are reduced by.
            pixel_std: by what the difference is divided.
            frames: T; fixed, as each has a learned position.
            features: F.
            layers: of the transformer.
            dropout: of the statistics and in the transformer, in training.
            remembered: of so many frames, the latest seen, the statistics are kept, about 4 kB each.
        """
        super().__init__()
        self.backbone = TimmBackbone(name=name, pretrained=pretrained, out_features=_STAGES)
        self.backbone.requires_grad_(False)
        channels = sum(shape.channels for shape in self.backbone.output_shape().values())
        inputs = 4 * channels + 2 * _GRID**2
        self.norm = nn.BatchNorm1d(inputs)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, features), nn.GELU())
        self.context = FrameTransformer(frames=frames, features=features, layers=layers, dropout=dropout)
        self.register_buffer("mean", torch.tensor(pixel_mean).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(pixel_std).view(3, 1, 1) / 255, persistent=False)
        self._memory = _Memory(remembered)

    def train(self, mode: bool = True) -> TimmVideoEncoder:
        """Set the mode; the frozen model keeps its statistics either way."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, video: Tensor) -> Tensor:
        """Return B×F×T of the frames, float B×3×T×S×S in [0, 1], S a multiple of 32."""
        clips, frames = video.shape[0], video.shape[2]
        images = video.transpose(1, 2)
        with torch.no_grad():
            seen = self._memory.get(images.flatten(0, 1), self._statistics).view(clips, frames, -1)
            shown = images.flatten(2).amax(dim=2, keepdim=True) > 0  # padding is black
            # Less what the clip has all the time, which says who speaks and where.
            inputs = torch.cat([centered(seen, shown), _change(seen), centered(_motion(images), shown)], dim=-1)
        normed = self.norm(inputs.flatten(0, 1)).view(inputs.shape)
        return self.context(self.project(normed)).transpose(1, 2)

    def _statistics(self, images: Tensor) -> Tensor:
        """Return the statistics of frames, N×3×S×S -> float32 N×K."""
        parts = []
        for some in ((images - self.mean) / self.std).split(_AT_ONCE):
            found = [torch.std_mean(x.float(), dim=(2, 3), correction=0) for x in self.backbone(some).values()]
            parts.append(torch.cat([part for deviation, mean in found for part in (mean, deviation)], dim=1))
        return torch.cat(parts)


class _Memory:
    """The statistics of frames that were seen lately, by the content of the frame.

    Training sees the same frames again and again, and their statistics never change: remembering them makes an epoch
    on CPUs several times faster.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return N×K of N×3×S×S, from memory where it can be."""
        if not self.size:
            return compute(images)
        keys = [hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=16).digest() for image in images]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        found = {}
        if new:
            first = {key: index for index, key in reversed(list(enumerate(keys)))}
            found = dict(zip(new, compute(images[[first[key] for key in new]]), strict=True))
        statistics = torch.stack([found[key] if key in found else self._known[key] for key in keys])
        for key in dict.fromkeys(keys):
            self._known[key] = found[key].clone() if key in found else self._known.pop(key)
        while len(self._known) > self.size:
            self._known.popitem(last=False)
        return statistics


def centered(x: Tensor, shown: Tensor) -> Tensor:
    """Take from each step of B×T×K the mean over the steps that are shown (bool B×T×1); the others become 0."""
    mean = (x * shown).sum(dim=1, keepdim=True) / shown.sum(dim=1, keepdim=True).clamp(min=1)
    return (x - mean) * shown


def _change(x: Tensor) -> Tensor:
    """Return by how much each step of B×T×K differs from the one before; 0 at the first."""
    return F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))


def _motion(images: Tensor) -> Tensor:
    """Return how much each cell of a grid moves, and how much its motion changes; B×T×3×S×S -> B×T×72.

    Logarithms, as motion spans orders of magnitude.
    """
    gray = images.mean(dim=2)
    moved = gray[:, 1:] - gray[:, :-1]
    turned = moved[:, 1:] - moved[:, :-1]
    cells = [F.adaptive_avg_pool2d(x.abs(), _GRID).flatten(2) for x in (moved, turned)]
    padded = [F.pad(cells[0], (0, 0, 1, 0)), F.pad(cells[1], (0, 0, 1, 1))]
    return (torch.cat(padded, dim=-1) + 1e-3).log()


class FrameTransformer(nn.Module):
    """Layers of self-attention over frames with learned positions."""

    def __init__(self, *, frames: int, features: int, layers: int, dropout: float, heads: int = 4) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, frames, features))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)
        layer = nn.TransformerEncoderLayer(
            features, heads, 2 * features, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return B×T×F of B×T×F."""
        return self.layers(x + self.pos_embedding)
