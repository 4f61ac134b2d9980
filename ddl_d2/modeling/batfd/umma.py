"""UMMAFormer's parts: reconstruction of the features, attention to what it fails at, and a pyramid in time.

Shapes: `B` clips, `C` channels, `T` steps (a multiple of 32); a mask is bool B×1×T, True on the clip.

Source: Zhang et al. 2023, "UMMAFormer". Names of parameters are those of its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from ddl_d2.modeling.batfd.masked_layers import ChannelNorm, CrossBlock, MaskedConv, SelfBlock

LEVELS = 6
STRIDE = 2 ** (LEVELS - 1)
"""T has to be a multiple of it."""

_WIDEST = 2048


@dataclass(frozen=True, kw_only=True)
class UmmaOutputs:
    """What UMMAFormer's parts give for a batch.

    Attributes:
        features: B×C×T, of both modalities, that were rebuilt; 0 on padding.
        reconstruction: B×C×T.
        logits: B×1, of "this clip is fake".
        levels: of the pyramid, B×C'×(T / 2^i).
        masks: of the levels.
    """

    features: Tensor
    reconstruction: Tensor
    logits: Tensor
    levels: list[Tensor]
    masks: list[Tensor]


class Abnormality(nn.Module):
    """UMMAFormer's parts on the features of both modalities; what they see is added to these.

    At the start nothing is added (`project` is 0): weights of a model without it load, and give what they gave.
    """

    def __init__(self, *, features: int, channels: int, heads: int, window: int, frames: int) -> None:
        """Make the parts.

        Args:
            features: of each modality.
            channels: of the pyramid.
            heads: of attention.
            window: frames that a query sees, odd.
            frames: that come in; they are padded to a multiple of `STRIDE`.
        """
        super().__init__()
        self.steps = -(-frames // STRIDE) * STRIDE
        self.interpolator = Reconstruction(2 * features, channels)
        self.backbone = Pyramid(2 * features, channels, heads, window=window, steps=self.steps)
        self.project = nn.Conv1d(channels, 2 * features, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, video: Tensor, audio: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, UmmaOutputs]:
        """Return the features of picture and sound with what was seen, and all that was seen.

        Args:
            video: B×F×t.
            audio: B×F×t.
            valid: B×t, 1 on the frames of the clip.
        """
        frames = video.shape[2]
        mask = F.pad(valid[:, None] > 0, (0, self.steps - frames))
        features = F.pad(torch.cat([video, audio], dim=1), (0, self.steps - frames)) * mask
        reconstruction, logits = self.interpolator(features, mask)
        levels, masks = self.backbone(features, reconstruction, mask)
        to_video, to_audio = self.project(levels[0])[..., :frames].chunk(2, dim=1)
        seen = UmmaOutputs(features=features, reconstruction=reconstruction, logits=logits, levels=levels, masks=masks)
        return video + to_video, audio + to_audio, seen


class Reconstruction(nn.Module):
    """An autoencoder over time, which learns real clips only, and says from its bottleneck whether a clip is fake."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        widths = [channels, _WIDEST // 8, _WIDEST // 4, _WIDEST // 2, _WIDEST, bottleneck]
        self.contraction = nn.ModuleDict({f"down_{i}": _Down(widths[i - 1], widths[i]) for i in range(1, len(widths))})
        widths = widths[::-1]
        self.expansion = nn.ModuleDict({f"up_{i}": _Up(widths[i - 1], widths[i]) for i in range(1, len(widths))})
        self.conv0 = nn.Sequential(nn.Conv1d(bottleneck, bottleneck, 1, bias=False), _InstanceNorm(), nn.LeakyReLU(0.2))
        self.conv1 = nn.Linear(2 * bottleneck, bottleneck, bias=False)
        self.conv2 = nn.Linear(bottleneck, 1)
        self.bn1 = ChannelNorm(bottleneck)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction, B×C×T, and the logit of "fake", B×1."""
        for down in self.contraction.values():
            x, mask = down(x, mask)
        hidden = self.conv0(x)
        pooled = self.conv1(torch.cat([hidden.amax(dim=2), hidden.mean(dim=2)], dim=1))
        pooled = F.dropout(F.relu(self.bn1(pooled[..., None]))[..., 0], 0.5, self.training)
        for up in self.expansion.values():
            x, mask = up(x, mask)
        return x, self.conv2(pooled)


class _InstanceNorm(nn.Module):
    """`instance_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x)


def instance_norm(x: Tensor) -> Tensor:
    """Normalize each channel of B×C×T over time; unlike PyTorch's, a sequence of one step becomes 0."""
    variance, mean = torch.var_mean(x, dim=2, keepdim=True, correction=0)
    return (x - mean) * (variance + 1e-5).rsqrt()


class _Down(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv_block = MaskedConv(before, after, 3, stride=2)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = self.conv_block(x, mask)
        return F.leaky_relu(instance_norm(x), 0.2), mask


class _Up(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv_transpose = _MaskedTransposed(before, after)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = self.conv_transpose(x, mask)
        return F.leaky_relu(instance_norm(x), 0.2), mask


class _MaskedTransposed(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(before, after, 3, 2, padding=1, output_padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask.repeat_interleave(2, dim=2)
        return self.conv(x) * mask, mask


class Pyramid(nn.Module):
    """Attention from the features to their reconstruction, and levels in time, each half as fine, that see others."""

    positions: Tensor

    def __init__(self, before: int, channels: int, heads: int, *, window: int, steps: int) -> None:
        """Make the layers.

        Args:
            before: channels that come in.
            channels: C.
            heads: of attention.
            window: steps that a query sees, odd; the last level's sees all.
            steps: T.
        """
        super().__init__()
        local = {"channels": channels, "heads": heads, "window": window}
        self.embd = nn.ModuleList(MaskedConv(c, channels, 3, bias=False) for c in (before, channels))
        self.embd_norm = nn.ModuleList(ChannelNorm(channels) for _ in range(2))
        self.resselfattention = CrossBlock(**local)
        self.stem = nn.ModuleList(SelfBlock(**local) for _ in range(2))
        windows = [window] * (LEVELS - 2) + [0]
        self.branch = nn.ModuleList(SelfBlock(channels, heads, window=w, stride=2) for w in windows)
        self.lh_branch = nn.ModuleList(CrossBlock(**local) for _ in windows)
        self.hh_branch = nn.ModuleList(CrossBlock(**local) for _ in windows)
        # Nothing comes behind the last one; the published checkpoints have it all the same.
        self.hh_branch[-1].requires_grad_(False)
        self.register_buffer("positions", _sinusoids(steps, channels) / channels**0.5, persistent=False)

    def forward(self, x: Tensor, reconstruction: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the levels, B×C×(T / 2^i), and their masks."""
        x, reconstruction = self._embedded(x, mask), self._embedded(reconstruction, mask)
        x = self.resselfattention(x, reconstruction, x, mask)
        for block in self.stem:
            x, mask = block(x, mask)
        fine, fine_mask = x, mask
        levels, masks = [fine], [fine_mask]
        for number, (branch, up, down) in enumerate(
            zip(self.branch, self.lh_branch, self.hh_branch, strict=True), start=1
        ):
            x, mask = branch(x, mask)
            repeated = x.repeat_interleave(2**number, dim=2)
            fine = up(fine, repeated, repeated, fine_mask)
            levels.append(x)
            masks.append(mask)
            if number < len(self.branch):
                thinned = fine[..., :: 2**number]
                x = down(x, thinned, thinned, mask)
        return [fine, *levels[1:]], masks

    def _embedded(self, x: Tensor, mask: Tensor) -> Tensor:
        for conv, norm in zip(self.embd, self.embd_norm, strict=True):
            x = F.relu(norm(conv(x, mask)[0]))
        return x + self.positions * mask


def _sinusoids(steps: int, channels: int) -> Tensor:
    """Return 1×C×T: sines in even channels, cosines in odd ones, of falling frequency."""
    channel = np.arange(channels)
    angles = np.arange(steps)[:, None] / np.power(10000, 2 * (channel // 2) / channels)
    table = np.where(channel % 2 == 0, np.sin(angles), np.cos(angles))
    return torch.from_numpy(table.T[None].astype(np.float32))


def reconstruction_loss(x: Tensor, reconstruction: Tensor, real: Tensor) -> Tensor:
    """Return the mean absolute error of the reconstruction over real clips; 0 where there is none.

    Args:
        x: B×C×T; nothing is learned through it.
        reconstruction: B×C×T.
        real: float B, 1 for real.
    """
    errors = (reconstruction - x.detach()).abs().mean(dim=(1, 2))
    return (errors * real).sum() / real.sum().clamp(min=1)


def score_loss(logits: Tensor, real: Tensor) -> Tensor:
    """Return the focal loss (alpha 0.25, gamma 2) of "this clip is fake", summed over clips; logits B×1, real B."""
    return sigmoid_focal_loss(logits.float(), 1 - real[:, None], reduction="sum")
