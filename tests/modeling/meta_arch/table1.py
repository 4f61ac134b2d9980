"""Checkpoints of S1's Table 1 with made-up weights, and the batch for which the published codes' outputs are known.

Every weight follows from its published key alone; the rules are those of reference/README.md.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.modeling.meta_arch.published import shapes_of_keys


def table1_checkpoint(keys: Path) -> dict[str, Tensor]:
    """The state dict with the keys that a `*.keys.txt` lists; without counters and tables, which nothing reads."""
    return {
        key: torch.from_numpy(drawn(key, shape))
        for key, shape in shapes_of_keys(keys).items()
        if not key.endswith(("num_batches_tracked", "relative_position_index"))
    }


def drawn(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32, drawn with a seed from the key."""
    rng = np.random.RandomState(int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little"))
    if key.endswith("running_var"):
        return (rng.random_sample(shape) + 1.5).astype(np.float32)
    noise = np.asarray(rng.standard_normal(shape))
    if key.endswith("gaussian_matrix"):
        values = noise
    elif key.endswith("pos_embed"):
        values = noise / 5
    elif len(shape) > 1:
        values = noise / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):  # the scale of a norm
        values = 1 + noise / 10
    else:
        values = noise / 20
    return np.asarray(values, dtype=np.float32)


def table1_rows(height: int, width: int, second_width: int) -> list[dict]:
    """A fake of height × width with a forged disc, and a narrower real one: waves, edges and noise."""
    rng = np.random.RandomState(7)
    rows = []
    for number, (w, phase) in enumerate(((width, 0.0), (second_width, 1.3))):
        y, x = np.mgrid[:height, :w]
        waves = np.stack([np.sin(x / 9.0 + phase + c) * np.cos(y / (11.0 + c)) for c in range(3)])
        edges = (x // 16 + y // 24) % 2 * 40.0
        pixels = np.clip(100.0 + 60.0 * waves + edges + rng.standard_normal((3, height, w)) * 12.0, 0, 255)
        disc = (y - 0.4 * height) ** 2 + (x - 0.55 * width) ** 2 < (0.27 * height) ** 2
        rows.append(
            {
                "image": torch.from_numpy(pixels.astype(np.uint8)),
                "is_fake": 1 - number,
                "forgery_mask": torch.from_numpy(disc if number == 0 else np.zeros_like(disc)),
            }
        )
    return rows
