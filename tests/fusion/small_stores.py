"""Prediction stores and datasets of a few pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddl_d2.io.image import write_png
from ddl_d2.predictions.meta import make_meta
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter


def write_store(root: Path, scores: dict[str, float], maps=None, labels=None, **meta) -> PredictionStore:
    """A store of `scores`, with the `maps` (levels, nested lists or arrays) and `labels` that are given."""
    with PredictionStoreWriter(root, make_meta(**meta)) as writer:
        for image_id, score in scores.items():
            levels = None if maps is None else np.array(maps[image_id], np.uint8)
            writer.add(image_id, score, levels, label=(labels or {}).get(image_id))
    return PredictionStore(root)


def write_images(root: Path, masks: dict[str, np.ndarray | None], size: tuple[int, int], seed: int = 0) -> Path:
    """A DDL-I split of noise: `fake/<name>` with a mask, or `real/<name>` where it is None."""
    rng = np.random.default_rng(seed)
    for image_id, mask in masks.items():
        write_png(root / image_id, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        if mask is not None:
            write_png(root / "masks" / Path(image_id).name, mask)
    return root
