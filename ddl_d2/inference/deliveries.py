"""Looking at images again after each of twelve deliveries (see `fragility`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from fvcore.transforms.transform import Transform

from ddl_d2.data.transforms.corruptions import DELIVERIES
from ddl_d2.inference.fragility import Delivered, Fragility
from ddl_d2.inference.model import Model
from ddl_d2.inference.prediction import Prediction
from ddl_d2.predictions.verdict import NO_FACE


def with_fragility(model: Model, predictions: Iterable[Prediction], *, batch_size: int = 8) -> Iterator[Prediction]:
    """Look at each image again after each of `DELIVERIES`, and attach what that gave.

    Args:
        model: that made the predictions.
        predictions: of images; one with an error, or without a face, stays as it is.
        batch_size: images that the model is given at once.

    Yields:
        the predictions; where the verdict does not hold it is now "inconclusive".
    """
    for prediction in predictions:
        if prediction.error is None and prediction.verdict != NO_FACE:
            prediction.weigh(fragility_of(model, prediction, batch_size=batch_size))
        yield prediction


def fragility_of(model: Model, prediction: Prediction, *, batch_size: int = 8) -> Fragility:
    """What a model says of an image after each of `DELIVERIES`.

    Args:
        model: that made the prediction.
        prediction: of one image.
        batch_size: images that the model is given at once.

    Raises:
        ImageReadError: the image could not be read, so that there is no prediction.
    """
    summary, image = prediction.summary, prediction.image
    assert image is not None  # noqa: S101  without an error there is an image
    # What is drawn, such as noise, depends on the image alone: a second call says the same.
    name = hashlib.sha256(image.tobytes()).hexdigest()
    changes = [one.transform(name, image.shape[:2]) for one in DELIVERIES]
    results = model.predict_many((change.apply_image(image) for change in changes), batch_size=batch_size)
    forged = prediction.forgery_map > summary.map_threshold
    delivered = []
    for one, change, result in zip(DELIVERIES, changes, results, strict=True):
        found = result.forgery_map > summary.map_threshold
        score = None if result.verdict == NO_FACE else result.fake_score
        delivered.append(Delivered(one.name, score, result.verdict, round(_map_iou(forged, found, change), 4)))
    return Fragility(prediction.verdict, summary.score, tuple(delivered))


def _map_iou(forged: np.ndarray, found: np.ndarray, change: Transform) -> float:
    """IoU of the forged pixels (bool H×W) with those of the delivered image (bool H'×W'), brought back to H×W."""
    back = change.inverse()
    seen = back.apply_segmentation(np.ones(found.shape, np.uint8)).astype(bool)
    ours, theirs = forged & seen, back.apply_segmentation(found.view(np.uint8)).astype(bool)
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0
