"""Images to time the mappers with: made for the purpose, or the first of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from _usual_mapper import Row
from PIL import Image

from ddl_d2.data.datasets import load_dataset
from ddl_d2.io.image import write_png


def made_images(folder: Path, count: int, size: int, mask_bits: int) -> list[Row]:
    """`count` real and `count` fake rows: JPEGs of quality 90 from scikit-image's photographs, elliptic masks."""
    from skimage import data

    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        pixels = _mosaic(photographs, size, rng)
        mask = _ellipse(size, rng)
        for label, name in enumerate(("real", "fake")):
            path = folder / name / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shown = np.where(mask[:, :, None], 255 - pixels, pixels) if label else pixels
            Image.fromarray(shown).save(path, quality=90)
            rows.append({"file_name": str(path), "image_id": f"{name}/{path.name}", "is_fake": label})
        mask_path = folder / "masks" / f"{index}.png"
        write_png(mask_path, mask if mask_bits == 1 else mask * np.uint8(255))
        rows[-1] = {**rows[-1], "mask_file_name": str(mask_path)}
    return rows


def _mosaic(photographs: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Size x size x 3 from four photographs side by side, each a little enlarged: detail as in a photograph."""
    half = -(-size // 2)
    tiles = []
    for number in rng.permutation(len(photographs)):
        photograph = Image.fromarray(photographs[number])
        scale = half / min(photograph.size) * rng.uniform(1, 1.2)
        width, height = (max(half, round(side * scale)) for side in photograph.size)
        enlarged = np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC))
        tiles.append(enlarged[:half, :half, :: int(rng.choice([-1, 1]))])
    return np.ascontiguousarray(np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])[:size, :size])


def _ellipse(size: int, rng: np.random.Generator) -> np.ndarray:
    """Bool size x size: a region of a tenth to a third of the image."""
    mask = np.zeros((size, size), np.uint8)
    center, axes = rng.uniform(0.4, 0.6, 2) * size, rng.uniform(0.18, 0.32, 2) * size
    cv2.ellipse(mask, (tuple(center), tuple(2 * axes), rng.uniform(0, 180)), 1, -1)
    return mask.astype(bool)


def dataset_images(root: Path, split: str | None, count: int) -> list[Row]:
    """The first `count` real and fake images of a dataset; fakes without a mask are left out."""
    rows, _ = load_dataset(root, split, fake_without_mask="skip")
    chosen: dict[int, list[Row]] = {0: [], 1: []}
    for row in rows:
        if len(chosen.get(row.get("is_fake", -1), range(count))) < count:
            chosen[row["is_fake"]].append(row)
    if not (chosen[0] and chosen[1]):
        raise OSError(f"{root}: real and fake images (with masks) are needed to train on")
    return chosen[0] + chosen[1]
