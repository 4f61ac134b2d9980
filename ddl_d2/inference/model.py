"""A trained model that is given files or images and gives results: what `ddl_d2.load_model` returns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from ddl_d2.checkpoint.config import config_for
from ddl_d2.checkpoint.shipped import about_weights, find_weights
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.inference.sources import PredictsSources
from ddl_d2.inference.video import VideoPrediction, predict_video
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.utils.malloc import keep_freed_memory


def load_model(
    weights: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    device: str | None = None,
    threshold: float = 0.5,
    opts: Sequence[str] = (),
) -> Model:
    """Load trained weights and make them ready to predict.

    Args:
        weights: a `.safetensors` or `.pth` file, or the name of weights that come with ddl_d2 (`list_weights`). None:
            those for swapped faces, "eyes_lite0"; weights/MODEL_CARD.md says what they can and cannot do.
        config: a config file, or the name of one of the project's (`list_configs`). None: the config that the weights
            carry, as those do that this project's trainer saves.
        device: "cpu", "cuda", "cuda:1"; None: a GPU if there is one.
        threshold: an image is called fake above this score, 0..1.
        opts: config changes, KEY VALUE KEY VALUE ...

    Returns:
        the model.

    Raises:
        CheckpointError: the weights cannot be read, or do not fit the config.
        ConfigError: no config is named and the weights carry none, or a key or value is wrong.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cfg = config_for(find_weights(weights), config=config, opts=[*opts, "MODEL.DEVICE", device])
    keep_freed_memory()
    return Model(cfg, ForgeryPredictor.from_cfg(cfg), threshold=threshold)


class Model(PredictsSources):
    """A trained model. Several threads may share one.

    Attributes:
        cfg: its config, frozen.
        predictor: the model behind it, for decoded images.
    """

    def __init__(self, cfg: CfgNode, predictor: ForgeryPredictor, *, threshold: float = 0.5) -> None:
        """Put a config and its predictor together; see `Attributes`. Raises InputError as `PredictsSources`."""
        super().__init__(threshold=threshold, map_threshold=cfg.TEST.MAP_THRESHOLD, max_pixels=cfg.INPUT.MAX_PIXELS)
        self.cfg, self.predictor = cfg, predictor

    @property
    def about(self) -> str:
        """What the weights say of themselves: their name, what they were trained on and what for; else their file."""
        weights = self.cfg.MODEL.WEIGHTS
        return about_weights(weights) or weights

    def predict_video(self, path: str | os.PathLike[str], *, frames: int = 32) -> VideoPrediction:
        """Score a video by evenly spaced frames; the frames' scores become one by TEST.VIDEO_SCORE of the config.

        Args:
            path: the video.
            frames: how many; 0 = all.

        Raises:
            ImageReadError: not a readable video.
        """
        return predict_video(
            Path(path),
            self.predictor,
            frames=frames,
            video_score=self.cfg.TEST.VIDEO_SCORE,
            threshold=self.threshold,
            max_pixels=self.cfg.INPUT.MAX_PIXELS,
        )

    def describe(self) -> dict[str, Any]:
        """What made a prediction, as JSON values: architecture, weights, config, threshold."""
        weights = Path(self.cfg.MODEL.WEIGHTS)
        return {
            "meta_architecture": self.cfg.MODEL.META_ARCHITECTURE,
            "weights": str(weights),
            "weights_sha256": file_sha256(weights) if weights.is_file() else None,
            "config_sha256": self._config_sha256(),
            "threshold": self.threshold,
        }

    def _config_sha256(self) -> str:
        """Of all keys that a prediction may depend on."""
        keys = {name: self.cfg[name].clone() for name in ("INPUT", "MODEL", "TEST")}
        keys["MODEL"].defrost()
        keys["MODEL"].WEIGHTS = keys["MODEL"].DEVICE = ""
        text = "".join(node.dump() for node in keys.values())
        return hashlib.sha256(text.encode()).hexdigest()

    def outputs(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Predict decoded images; see `predictor`."""
        return self.predictor.predict_batch(images)
