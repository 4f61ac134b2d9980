"""Noise residuals of the Spatial Rich Model (Fridrich and Kodovsky 2012), by three fixed filters.

Shapes: `B` images, `H, W` pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SECOND_ORDER = (
    (0, 0, 0, 0, 0),
    (0, -1, 2, -1, 0),
    (0, 2, -4, 2, 0),
    (0, -1, 2, -1, 0),
    (0, 0, 0, 0, 0),
)
_FIFTH_ORDER = (
    (-1, 2, -2, 2, -1),
    (2, -6, 8, -6, 2),
    (-2, 8, -12, 8, -2),
    (2, -6, 8, -6, 2),
    (-1, 2, -2, 2, -1),
)
_HORIZONTAL = (
    (0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0),
    (0, 1, -2, 1, 0),
    (0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0),
)


class SRMResiduals(nn.Module):
    """Noise residuals of an image, one for each filter, of the sum of the three colors, clipped.

    Nothing is learned. Computed in fp32 under autocast as well: residuals are far smaller than the values whose
    differences they are.
    """

    kernels: Tensor

    def __init__(self, *, scale: float = 1.0, limit: float = 3.0) -> None:
        """Make the filters.

        Args:
            scale: residuals are multiplied by it before they are clipped. The published network filters images
                normalized to [-1, 1] (scale 1), so that they are almost never clipped; with 127.5 they are as in the
                literature, on gray levels 0..255.
            limit: residuals are clipped to [-limit, limit].
        """
        super().__init__()
        self.scale = scale
        self.limit = limit
        filters = ((_SECOND_ORDER, 4), (_FIFTH_ORDER, 12), (_HORIZONTAL, 2))
        kernels = torch.stack([torch.tensor(rows, dtype=torch.float32) / divisor for rows, divisor in filters])
        self.register_buffer("kernels", kernels[:, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Filter normalized images, B×3×H×W; returns fp32 B×3×H×W, channels last, one channel for each filter."""
        # One filter on the sum of the colors is the same filter on each, summed.
        with torch.autocast(images.device.type, enabled=False):
            gray = images.float().sum(dim=1, keepdim=True)
            residuals = F.conv2d(gray, self.kernels * self.scale, padding=2)
            residuals = residuals.clamp_(-self.limit, self.limit)
        return residuals.contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        """Return the options, for `repr`."""
        return f"scale={self.scale}, limit={self.limit}"
