"""A predictor whose answers a person can check: grain is fake, red pixels are forged."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


class Grain:
    """Calls fine grain fake, wherever it is; the forged pixels are the red ones.

    Attributes:
        batches: how many images each call had.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[dict[str, float | np.ndarray]]:
        """Predict images, uint8 H×W×3 RGB."""
        self.batches.append(len(images))
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> dict[str, float | np.ndarray]:
        fine = cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()
        red = image[..., 0].astype(np.float32) - image[..., 1]
        return {"fake_score": float(min(1.0, fine / 60)), "forgery_map": (red > 60).astype(np.float32)}
