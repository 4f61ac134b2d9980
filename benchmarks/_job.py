"""What one process of `benchmark_model.py` computes, and the images it is shown.

Shapes: `B` images, `H, W` pixels.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "ddl_i"
SEED = 0


@dataclass(frozen=True)
class Job:
    """What one process computes; `weights` is the file that our model writes and the peer reads."""

    candidate: str
    mode: str
    backbone: str
    height: int
    width: int
    batch: int
    queries: int
    dtype: str
    device: str
    weights: str
    threads: int | None = None
    compile: bool = False
    keep_memory: bool = False
    fp32_stride: int = 32

    @property
    def training(self) -> bool:
        return self.mode == "training"

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")


def make_images(job: Job) -> Tensor:
    """Clouds with some noise: uint8 B×3×H×W. White noise alone would look the same everywhere to a network."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(job.batch, 3, job.height // 32 + 1, job.width // 32 + 1, generator=generator)
    clouds = F.interpolate(coarse, size=(job.height, job.width), mode="bicubic", align_corners=False)
    noise = torch.randn(clouds.shape, generator=generator) / 20
    return (255 * (clouds + noise)).clamp(0, 255).to(torch.uint8)


def make_masks(job: Job) -> Tensor:
    """One blob for each image, at a random place: bool B×1×H×W."""
    generator = torch.Generator().manual_seed(SEED + 1)
    coarse = F.interpolate(torch.rand(job.batch, 1, 4, 4, generator=generator), size=(job.height, job.width),
                           mode="bicubic", align_corners=False)  # fmt: skip
    levels = coarse.flatten(2)
    return coarse > levels.kthvalue(levels.shape[2] * 3 // 4, dim=2).values[..., None, None]
