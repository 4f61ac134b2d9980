"""Predicting with an exported ONNX file by ONNX Runtime: the results of `load_model`, without torch.

    predictor = OnnxPredictor("model.onnx")
    result = predictor.predict("photo.jpg")

Shapes: `H, W` pixels of an image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddl_d2.errors import CheckpointError, InstallError
from ddl_d2.faces.crop import FaceCropper, cut
from ddl_d2.faces.finders import make_remembering_finder
from ddl_d2.inference.onnx_about import METADATA, OnnxAbout
from ddl_d2.inference.sources import PredictsSources
from ddl_d2.utils.scores import face_score


class OnnxPredictor(PredictsSources):
    """An exported model. Several threads may share one.

    Attributes:
        about: what the file says of itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threshold: float = 0.5,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Open a file that `ddl-d2 export` wrote.

        Args:
            path: the file.
            threshold: an image is called fake above this score, 0..1.
            threads: that compute one operator together; None: one for each core.
            providers: ONNX Runtime's execution providers, the preferred first.

        Raises:
            CheckpointError: it cannot be read, or is not such a file.
            FaceFinderUnavailableError: a model of faces, whose finder is not installed.
            InputError: a threshold outside 0..1.
            InstallError: ONNX Runtime is not installed.
        """
        self._session = _session(path, threads, providers)
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA)
        if text is None:
            raise CheckpointError(f"{os.fspath(path)}: says nothing of ddl_d2; export it with `ddl-d2 export`")
        self.about = OnnxAbout.from_dict(json.loads(text))
        super().__init__(threshold=threshold, map_threshold=self.about.map_threshold, max_pixels=self.about.max_pixels)
        self._crop: FaceCropper | None = None
        if self.about.faces is not None:
            finder = make_remembering_finder(**self.about.faces["finder"])
            self._crop = FaceCropper(finder, **self.about.faces["crop"])

    def outputs(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Predict decoded images, uint8 H×W×3 RGB; those of one size go through the model at once."""
        if self._crop is not None:
            return [self._by_faces(image, self._crop) for image in images]
        return self.whole(images)

    def whole(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Predict images as they are, also where `outputs` would cut them to their faces."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(image.shape, []).append(index)
        found: dict[int, dict[str, Any]] = {}
        for indices in groups.values():
            batch = np.stack([images[index] for index in indices])
            scores, maps = self._session.run(["fake_score", "forgery_map"], {"image": batch})
            for index, score, forged in zip(indices, scores, maps, strict=True):
                found[index] = {"fake_score": float(score), "forgery_map": forged}
        return [found[index] for index in range(len(images))]

    def _by_faces(self, image: np.ndarray, crop: FaceCropper) -> dict[str, Any]:
        """Predict an image from its face crops, as `modeling.test_time.faces.OnFaceCrops` does."""
        assert self.about.faces is not None  # noqa: S101  there is a cropper only then
        chosen = crop(image)
        windows = [one.window for one in chosen]
        parts = self.whole([cut(image, window) for window in windows])
        scores = [part["fake_score"] for part in parts]
        forged = np.zeros(image.shape[:2], dtype=np.float32)
        for (x0, y0, x1, y1), part in zip(windows, parts, strict=True):
            view = forged[y0:y1, x0:x1]
            np.maximum(view, part["forgery_map"], out=view)
        return {
            "fake_score": face_score(scores, self.about.faces["score"]),
            "forgery_map": forged,
            "faces": [{"window": w, "fake_score": score} for w, score in zip(windows, scores, strict=True)],
            "has_face": any(one.face is not None for one in chosen),
        }


def _session(path: str | os.PathLike[str], threads: int | None, providers: Sequence[str]) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf, NoSuchFile
    except ImportError as error:
        raise InstallError("OnnxPredictor needs ONNX Runtime: pip install 'ddl_d2[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Weights of eight bits become float32 once, when the file is opened, instead of in each run.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=list(providers))
    except (Fail, InvalidGraph, InvalidProtobuf, NoSuchFile) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise CheckpointError(f"{os.fspath(path)}: not a readable ONNX file ({reason})") from error
