"""Random scores and forgery maps to time metrics with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_scores(count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels, four fifths of them fake, and scores that overlap; every tenth is rounded to two digits."""
    rng = np.random.default_rng(0)
    labels = (rng.random(count) < 0.8).astype(np.int64)
    labels[:2] = (0, 1)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    return labels, np.where(rng.random(count) < 0.1, scores.round(2), scores).astype(np.float32)


def random_map(size: int, seed: int = 0, noise: float = 0.03) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """A mask with one elliptic region, and a forgery map that is near it, soft at the border and noisy."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    inside = 1 - ((rows - 0.5) / 0.2) ** 2 - ((columns - 0.45) / 0.25) ** 2
    shifted = 1 - ((rows - rng.uniform(0.48, 0.52)) / 0.21) ** 2 - ((columns - 0.47) / 0.24) ** 2
    found = 0.5 + 0.4 * np.tanh(3 * shifted) + rng.normal(0, noise, (size, size))
    return inside > 0, np.clip(found, 0, 1).astype(np.float32)
