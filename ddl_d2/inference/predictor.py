"""From an image to a prediction, the way the evaluation does it: the same resizing, the same color order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.data.build_faces import build_face_crop
from ddl_d2.data.mapper import Crop, inference_input
from ddl_d2.data.transforms.build import build_spread_views, build_views
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.inference.gradcam import predict_with_heat_map
from ddl_d2.utils.precision import autocast


class ForgeryPredictor:
    """Predict decoded images, as Detectron2's `DefaultPredictor` does; several threads may call one predictor.

    Args:
        model: any of the project's models; put into eval mode.
        augmentation: what an image (or each crop of it) undergoes before the model sees it; one without randomness.
        precision: "float32", "bfloat16" or "float16".
        crop: cuts each image, as the mapper's; for a model in `OnFaceCrops`.
        views: makes further views of each image (or crop), as the mapper's; for a model in `OnViews`.
        spread_views: makes views that only say how far views differ; for one with `spread`.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentation: T.Augmentation,
        *,
        precision: str = "float32",
        crop: Crop | None = None,
        views: Sequence[T.Augmentation] = (),
        spread_views: Sequence[T.Augmentation] = (),
    ) -> None:
        self.model = model.eval()
        self.augmentation = augmentation
        self.precision = precision
        self.crop = crop
        self.views, self.spread_views = views, spread_views

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> ForgeryPredictor:
        """Build the model of `cfg`, load MODEL.WEIGHTS into it, and show it images as the evaluation does.

        That is, cut to faces if INPUT.FACE_CROP says so, resized as INPUT.{MIN,MAX}_SIZE_TEST say, and in the views of
        TEST.AUG and TEST.UNCERTAINTY.

        Raises:
            CheckpointError: MODEL.WEIGHTS is empty, unreadable, or does not fit the model.
            ConfigError, FaceFinderUnavailableError: as `build_face_crop`.
        """
        model = build_trained_model(cfg)
        resize = ResizeToFit(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        crop = build_face_crop(cfg, False)
        views, spread = build_views(cfg), build_spread_views(cfg)
        return cls(model, resize, precision=cfg.TEST.PRECISION, crop=crop, views=views, spread_views=spread)

    @torch.no_grad()
    def __call__(self, image: np.ndarray, *, heat_map: bool = False) -> dict[str, Any]:
        """Predict an image.

        Args:
            image: uint8 H×W×3 RGB, any size.
            heat_map: also show what the score rests on (`gradcam`).

        Returns:
            the model's output: `fake_score` (float), `forgery_map` (float tensor H×W in [0, 1]), `instances`, and if
            asked for `heat_map` (likewise); all at the size of `image`. On face crops also `faces`, see `OnFaceCrops`;
            with TEST.UNCERTAINTY `score_spread` and `reliability_map`, see `OnViews`.

        Raises:
            ValueError: not such an array.
            ConfigError: a heat map of a model without an image head.
        """
        row = self._row(image)
        with autocast(self.device.type, self.precision):
            return predict_with_heat_map(self.model, row) if heat_map else dict(self.model([row])[0])

    @torch.no_grad()
    def predict_batch(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Predict several images; each gets the output that it has alone, but for rounding.

        Images that the model sees at one size share a batch: padding would change what it says of them.

        Args:
            images: uint8 H×W×3 RGB, any sizes.

        Returns:
            one output per image, as from a call. Raises as a call.
        """
        rows = [self._row(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            # Face crops are batched by the model that puts them together.
            key = tuple(row["image"].shape) if "image" in row else (index,)
            groups.setdefault(key, []).append(index)
        outputs: dict[int, dict[str, Any]] = {}
        with autocast(self.device.type, self.precision):
            for indices in groups.values():
                found = self.model([rows[index] for index in indices])
                outputs.update(zip(indices, map(dict, found), strict=True))
        return [outputs[index] for index in range(len(rows))]

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters(), torch.empty(0)).device

    def _row(self, image: np.ndarray) -> dict[str, Any]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"the predictor takes uint8 H×W×3, not {image.dtype} {tuple(image.shape)}")
        return inference_input(np.ascontiguousarray(image), self.augmentation, self.crop, self.views, self.spread_views)
