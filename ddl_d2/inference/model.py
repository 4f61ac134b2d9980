"""A trained model that is given files or images and gives results: what `ddl_d2.load_model` returns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from ddl_d2.checkpoint.config import config_for
from ddl_d2.checkpoint.loading import local_path
from ddl_d2.checkpoint.shipped import about_weights, find_weights
from ddl_d2.data.build_faces import build_face_finder
from ddl_d2.errors import InputError
from ddl_d2.faces.face import FaceFinder
from ddl_d2.inference.calibrated_weights import calibration_for
from ddl_d2.inference.clip import ClipPredictor, predict_clip
from ddl_d2.inference.clip_prediction import ClipPrediction
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.inference.sources import PredictsSources
from ddl_d2.inference.video import VideoPrediction, predict_video
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.utils.malloc import keep_freed_memory


def load_model(
    weights: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    device: str | None = None,
    threshold: float | None = None,
    calibration: str | os.PathLike[str] | None = None,
    opts: Sequence[str] = (),
) -> Model:
    """Load trained weights and make them ready to predict.

    Args:
        weights: a `.safetensors` or `.pth` file, or the name of weights that come with ddl_d2 (`list_weights`). None:
            those for swapped faces, "eyes_lite0"; weights/MODEL_CARD.md says what they can and cannot do.
        config: a config file, or the name of one of the project's (`list_configs`). None: the config that the weights
            carry, as those do that this project's trainer saves.
        device: "cpu", "cuda", "cuda:1"; None: a GPU if there is one.
        threshold: an image is called fake above this score, 0..1, and no calibration is used. None: the calibration
            decides; without one, 0.5.
        calibration: a file of `ddl-d2 calibrate`, or a name of those that come with ddl_d2. None:
            what the weights carry, if it holds for these settings
            (`Model.note` says so if it does not).
        opts: config changes, KEY VALUE KEY VALUE ...

    Returns:
        the model.

    Raises:
        CheckpointError: the weights cannot be read, or do not fit the config.
        ConfigError: no config is named and the weights carry none, or a key or value is wrong.
        CalibrationError: the calibration cannot be read, or was made for other weights or settings.
        InputError: both a threshold and a calibration are given, or a threshold outside 0..1.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cfg = config_for(find_weights(weights), config=config, opts=[*opts, "MODEL.DEVICE", device])
    keep_freed_memory()
    return Model.from_cfg(cfg, threshold=threshold, calibration=calibration)


class Model(PredictsSources):
    """A trained model. Several threads may share one.

    Attributes:
        cfg: its config, frozen.
        threshold: an image is called fake above this score, without a calibration; so is a video, with or without.
        calibration: what decides on images; None if nothing does but the threshold.
        note: why a calibration that the weights carry is not used; "" if there is nothing to say.
        predictor: the model behind it, for decoded images; or for clips, where the system sees picture and sound.
    """

    def __init__(
        self,
        cfg: CfgNode,
        predictor: ForgeryPredictor | ClipPredictor,
        *,
        threshold: float = 0.5,
        calibration: Calibration | None = None,
        note: str = "",
    ) -> None:
        """Put a config and its predictor together; see `Attributes`. Raises InputError as `PredictsSources`."""
        super().__init__(
            threshold=threshold,
            map_threshold=cfg.TEST.MAP_THRESHOLD,
            max_pixels=cfg.INPUT.MAX_PIXELS,
            calibration=calibration,
        )
        self.cfg, self.predictor, self.note = cfg, predictor, note

    @classmethod
    def from_cfg(
        cls, cfg: CfgNode, *, threshold: float | None = None, calibration: str | os.PathLike[str] | None = None
    ) -> Model:
        """Load the model of a config; the other arguments, and what it raises, are `load_model`'s."""
        if threshold is not None and calibration is not None:
            raise InputError("a threshold and a calibration are two ways to decide: give one of them")
        predictor = (ClipPredictor if cfg.INPUT.CLIP.ENABLED else ForgeryPredictor).from_cfg(cfg)
        if threshold is not None:
            return cls(cfg, predictor, threshold=threshold)
        used, note = calibration_for(local_path(cfg.MODEL.WEIGHTS), cfg, file=calibration)
        return cls(cfg, predictor, calibration=used, note=note)

    def at_false_alarms(self, rate: float) -> Model:
        """The same model that decides by the plain threshold at which its calibration expects a rate of false alarms.

        Args:
            rate: one of those that `ddl-d2 calibrate` looks at, such as 0.05: the share of real images called fake.

        Raises:
            InputError: there is no calibration, or it has no threshold for this rate.
        """
        if self.calibration is None:
            raise InputError("a rate of false alarms needs a calibration, which these weights have not")
        known = {float(text): threshold for text, threshold in self.calibration.thresholds.items()}
        if rate not in known:
            listed = ", ".join(f"{one:g}" for one in sorted(known))
            raise InputError(f"the calibration has no threshold for a rate of {rate:g} (it has {listed})")
        return Model(self.cfg, self.predictor, threshold=known[rate])

    @property
    def about(self) -> str:
        """What the weights say of themselves: their name, what they were trained on and what for; else their file."""
        weights = self.cfg.MODEL.WEIGHTS
        return about_weights(weights) or weights

    def predict_video(self, path: str | os.PathLike[str], *, frames: int = 32) -> VideoPrediction | ClipPrediction:
        """Score a video by evenly spaced frames; the frames' scores become one by TEST.VIDEO_SCORE of the config.

        A system that sees clips sees all of the video, with its sound, and tells which seconds are forged.

        Args:
            path: the video.
            frames: how many; 0 = all.

        Raises:
            ImageReadError: not a readable video.
        """
        if isinstance(self.predictor, ClipPredictor):
            return predict_clip(Path(path), self.predictor, threshold=self.threshold)
        return predict_video(
            Path(path),
            self.predictor,
            frames=frames,
            video_score=self.cfg.TEST.VIDEO_SCORE,
            threshold=self.threshold,
            max_pixels=self.cfg.INPUT.MAX_PIXELS,
        )

    @cached_property
    def landmark_finder(self) -> FaceFinder:
        """Finds faces with their landmarks, as INPUT.FACES says otherwise; for `Prediction.explain`.

        Raises:
            FaceFinderUnavailableError: a library or model is missing; the message says what to install.
        """
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.INPUT.FACES.LANDMARKS = True
        return build_face_finder(cfg)

    def describe(self) -> dict[str, Any]:
        """What made a prediction, as JSON values: architecture, weights, config, threshold, calibration if any."""
        weights = Path(self.cfg.MODEL.WEIGHTS)
        return {
            "meta_architecture": self.cfg.MODEL.META_ARCHITECTURE,
            "weights": str(weights),
            "weights_sha256": file_sha256(weights) if weights.is_file() else None,
            "config_sha256": self._config_sha256(),
            "threshold": self.threshold,
            **({} if self.calibration is None else {"calibration": self.calibration.fingerprint}),
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
        if isinstance(self.predictor, ClipPredictor):
            raise InputError(f"{self.cfg.MODEL.META_ARCHITECTURE} sees clips with sound, not images: give it videos")
        return self.predictor.predict_batch(images)
