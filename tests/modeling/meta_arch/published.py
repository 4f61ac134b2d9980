"""Checkpoints with published keys and made-up weights, and the image for which published outputs are known.

A weight follows from its key alone, so that another implementation can be filled alike without a file of weights.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

REFERENCE = Path(__file__).with_name("reference")


def published_checkpoint(name: str) -> dict[str, Tensor]:
    """The state dict with the keys that `reference/{name}.keys.txt` lists."""
    weights = weights_by_name(shapes_of_keys(REFERENCE / f"{name}.keys.txt"))
    # Index tables are drawn like all others: the loader does not read them.
    return weights | {"criterion.empty_weight": torch.tensor([1.0, 0.1])}


def weights_by_name(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """{key: shape} -> {key: float32 tensor}, drawn with a seed from the key."""
    return {key: torch.from_numpy(_draw(key, shape).astype(np.float32)) for key, shape in shapes.items()}


def reference_image() -> Tensor:
    """Uniform noise, RGB, float in [0, 255], 3 × 192 × 256."""
    pixels = np.random.RandomState(0).random_sample((192, 256, 3)) * 255
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))


def _draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values that keep a deep network's features of order 1.

    Kernels and matrices are N(0, 1 / inputs of an output), scales of normalizations N(1, 0.1), running variances
    uniform in [0.75, 1.25], all other vectors N(0, 0.05) (standard deviations).
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    rng = np.random.RandomState(seed)
    if key.endswith(".running_var"):
        return rng.uniform(0.75, 1.25, shape)
    noise = np.asarray(rng.standard_normal(shape))
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    scales = key.endswith("weight") and ("norm" in key or "bn" in key)
    return 1 + noise / 10 if scales else noise / 20


def shapes_of_keys(path: Path) -> dict[str, tuple[int, ...]]:
    """The lines of a list, "key (1, 2, 3)"."""
    shapes = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, shape = line.partition(" ")
        shapes[key] = tuple(int(side) for side in shape.strip("()").split(",") if side.strip())
    return shapes
