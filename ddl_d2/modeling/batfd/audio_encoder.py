"""What turns the log-mel spectrogram of a clip into one vector for each video frame.

Shapes: `B` clips, `T` video frames, `F` features; a spectrogram is B×64×4T (`layers.log_mel`).

Sources: ViT (Dosovitskiy et al. 2021) with one token a video frame, as in BA-TFD+ (Cai et al. 2023), through
torchvision's `Encoder`; the CNN of BA-TFD (Cai et al. 2022). Names of parameters are those of the published
checkpoints.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import Encoder

from ddl_d2.layers.log_mel import SILENCE
from ddl_d2.modeling.batfd.timm_frames import FrameTransformer, centered
from ddl_d2.modeling.batfd.video_encoder import ConvUnit

VIT_WIDTHS = {"vit_t": (192, 3), "vit_s": (384, 6), "vit_b": (768, 12)}
"""Width of a token, and attention heads."""

_LAYERS = 12
_BANDS, _COLUMNS = 64, 4
_AUDIBLE = 1e-3


class ViTAudioEncoder(nn.Module):
    """A vision transformer on patches of all bands by four columns."""

    def __init__(
        self, *, width: int, heads: int, frames: int, features: int = 256, layers: int = _LAYERS, dropout: float = 0.0
    ) -> None:
        """Build it with random weights.

        Args:
            width: of a token.
            heads: of attention.
            frames: T; fixed, as each has a learned position.
            features: F.
            layers: of the transformer.
            dropout: share of activations set to 0 in training.
        """
        super().__init__()
        self.block = Encoder(
            seq_length=frames,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            mlp_dim=4 * width,
            dropout=dropout,
            attention_dropout=0.0,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.input_proj = _Projection(nn.Conv2d(1, width, (_BANDS, _COLUMNS), stride=(_BANDS, _COLUMNS)))
        self.output_proj = nn.Linear(width, features)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return B×F×T of a spectrogram, float B×64×4T."""
        tokens = self.input_proj(log_mel[:, None])[:, :, 0].transpose(1, 2)
        return self.output_proj(self.block(tokens)).transpose(1, 2)


class _Projection(nn.Module):
    """Holds a convolution under the name that the published checkpoints have."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x."""
        return self.conv(x)


class CNNAudioEncoder(nn.Module):
    """BA-TFD's convolutions: 64 bands become 4, four columns become one; 64 channels × 4 bands are the 256 features."""

    def __init__(self) -> None:
        super().__init__()
        self.block0 = nn.Sequential(_WithChannel(), _conv2d(1, 32, (3, 3), 1), nn.MaxPool2d(2))
        self.block1 = nn.Sequential(_conv2d(32, 64, (3, 3), 1), _conv2d(64, 64, (3, 3), 1), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(
            _conv2d(64, 64, (2, 1), (1, 0)),
            nn.MaxPool2d((2, 1)),
            _conv2d(64, 64, (3, 1), (1, 0)),
            nn.MaxPool2d((2, 1)),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return B×256×T of a spectrogram, float B×64×4T."""
        return self.block2(self.block1(self.block0(log_mel))).flatten(1, 2)


class _WithChannel(nn.Module):
    """Adds the axis of the one channel; a module so that the others keep their published positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x with an axis of length 1 behind the first."""
        return x[:, None]


def _conv2d(before: int, after: int, kernel: tuple[int, int], padding: int | tuple[int, int]) -> ConvUnit:
    return ConvUnit(nn.Conv2d(before, after, kernel, padding=padding))


def stretched_sound(samples: Tensor, wanted: int) -> Tensor:
    """Bring the sound of a clip to `wanted` samples by linear interpolation; float n -> float `wanted`.

    Its pitch changes by the same factor, as in AV-Deepfake1M's code. No sound at all is silence.
    """
    if not samples.numel():
        return torch.zeros(wanted, device=samples.device)
    return nn.functional.interpolate(samples.float()[None, None], wanted, mode="linear", align_corners=False)[0, 0]


class LightAudioEncoder(nn.Module):
    """Two convolutions on the spectrogram and a small transformer: an audio encoder that a CPU can train."""

    def __init__(self, *, frames: int, features: int = 256, layers: int = 2, dropout: float = 0.0) -> None:
        """Build it with random weights.

        Args:
            frames: T; fixed, as each has a learned position.
            features: F.
            layers: of the transformer.
            dropout: of bands, of the convolutions' output and in the transformer, in training.
        """
        super().__init__()
        self.convs = nn.Sequential(
            nn.Dropout1d(dropout),  # of whole bands
            nn.Conv1d(_BANDS, features, 5, padding=2),
            nn.BatchNorm1d(features),
            nn.GELU(),
            nn.Conv1d(features, features, _COLUMNS, stride=_COLUMNS),
            nn.BatchNorm1d(features),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.context = FrameTransformer(frames=frames, features=features, layers=layers, dropout=dropout)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return B×F×T of a spectrogram, float B×64×4T."""
        columns = log_mel.transpose(1, 2)
        heard = columns.amax(dim=2, keepdim=True) > SILENCE + _AUDIBLE
        # Less what the clip sounds like all the time, which says who speaks and through what.
        return self.context(self.convs(centered(columns, heard).transpose(1, 2)).transpose(1, 2)).transpose(1, 2)
