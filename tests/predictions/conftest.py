"""A small store, and the map that it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddl_d2.predictions.writer import PredictionStoreWriter


def random_map(seed: int = 0, size: tuple[int, int] = (5, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def store(tmp_path) -> Path:
    """A store of three images."""
    with PredictionStoreWriter(tmp_path / "store", {"config": "A: 1\n"}) as writer:
        writer.add("real/a.jpg", 0.1, random_map(0), label=0, seconds=0.25)
        writer.add("fake/a.jpg", 1 / 3, random_map(1), label=1)
        writer.add("b.png", 1.0, random_map(2))
    return tmp_path / "store"
