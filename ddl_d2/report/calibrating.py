"""From the scores of a labeled corpus to a calibration, its held-out check, and the verdicts of a store.

Legend: N images.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from ddl_d2.errors import CalibrationError
from ddl_d2.evaluation.resampling import units_of
from ddl_d2.evaluation.results import ImageResult
from ddl_d2.io.atomic import write_whole
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.layout import VERDICTS
from ddl_d2.predictions.likelihood_ratio import PAV
from ddl_d2.predictions.settings import prediction_settings
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.verdict import NO_FACE
from ddl_d2.report.fitting import (
    Floats,
    Labels,
    conformal_limits,
    false_alarm_threshold,
    fit_ratio,
    fit_temperature,
)
from ddl_d2.report.held_out import HeldOut, cross_fitted, figures_of, folds_of
from ddl_d2.report.map_threshold import best_threshold, f1_by_threshold

FALSE_ALARM_RATES = (0.01, 0.03, 0.05)
"""The rates for which a calibration has a score threshold."""

FEWEST_IMAGES = 20
"""Of each class: fewer say nothing of shares of 5 %."""


@dataclass(frozen=True)
class Options:
    """How a calibration is made.

    Attributes:
        corpus: its name, as the verdicts will tell it.
        method: of the likelihood ratio, "pav" or "logistic".
        false_alarm_rate: of the three-way verdict, above 0 and below 1.
        miss_rate: likewise.
        folds: of the held-out check.
        map_images: the most fakes whose maps are read for the map's threshold; 0 for no such threshold.
    """

    corpus: str
    method: str = PAV
    false_alarm_rate: float = 0.05
    miss_rate: float = 0.05
    folds: int = 5
    map_images: int = 2000

    def __post_init__(self) -> None:
        if not self.corpus.strip():
            raise CalibrationError("a calibration is told with the name of its corpus: give one, --corpus NAME")


class Corpus(NamedTuple):
    """The scores of a labeled dataset.

    Attributes:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) in [0, 1].
        groups: (N,) number of the group that each image belongs to.
        unit: what groups are: "images", "videos" or "groups".
        without_face: number of images that were left out since no face was found.
    """

    labels: Labels
    scores: Floats
    groups: NDArray[np.int64]
    unit: str
    without_face: int


def corpus_of(
    store: PredictionStore, rows: Sequence[Mapping[str, Any]], groups: Mapping[str, str] | None = None
) -> Corpus:
    """Bring a store's scores and a dataset's labels together.

    Args:
        store: the predictions; images that only it has are left out.
        rows: dataset dicts; those without a label are left out.
        groups: the group of each `image_id`; None: videos, or else each image is its own.

    Raises:
        CalibrationError: there are too few images of a class.
        EvaluationError: as `units_of`.
        StoreError: the store lacks an image.
    """
    position = {image_id: index for index, image_id in enumerate(store.ids)}
    labeled = [row for row in rows if row.get("is_fake") in (0, 1)]
    kept = [row for row in labeled if row["image_id"] not in store.without_face]
    if missing := [row["image_id"] for row in kept if row["image_id"] not in position]:
        raise CalibrationError(f"{store.root}: has no prediction for {len(missing)} images, the first {missing[0]}")
    labels = np.array([row["is_fake"] for row in kept], np.int64)
    if min(fakes := int(labels.sum()), len(labels) - fakes) < FEWEST_IMAGES:
        raise CalibrationError(
            f"{store.root}: {fakes} forged and {len(labels) - fakes} real images with a label and a face; a "
            f"calibration needs {FEWEST_IMAGES} of each, and says more with hundreds"
        )
    results = [
        ImageResult(row["image_id"], None, None, None, False, 0, 0, video_id=row.get("video_id")) for row in kept
    ]
    units = units_of(results, groups)
    scores = store.scores[[position[row["image_id"]] for row in kept]]
    return Corpus(labels, scores, units.of_image, units.kind, len(labeled) - len(kept))


def calibrate(
    store: PredictionStore,
    rows: Sequence[Mapping[str, Any]],
    options: Options,
    *,
    groups: Mapping[str, str] | None = None,
    tensors_sha256: str = "",
) -> tuple[Calibration, HeldOut]:
    """Make a calibration of a store's scores, and check it on parts of the corpus that it was not fitted to.

    Args:
        store: the predictions.
        rows: the dataset dicts that they are of.
        options: how.
        groups: the group of each `image_id`, see `corpus_of`; groups are not split between fitting and checking.
        tensors_sha256: of the weights' tensors, "" if not known.

    Returns:
        The calibration, fitted to all images, with the figures of the check in it; and what the check said of each.

    Raises:
        CalibrationError, EvaluationError: as `corpus_of`, `fit_ratio` and `folds_of`.
        InstallError: lir is not installed.
    """
    corpus = corpus_of(store, rows, groups)
    fakes = int(corpus.labels.sum())
    counts = {"real": len(corpus.labels) - fakes, "fake": fakes, "without_face": corpus.without_face}
    bound = {
        "corpus": options.corpus,
        "counts": counts | {corpus.unit: int(corpus.groups.max()) + 1},
        "weights_sha256": store.meta.get("weights_sha256") or "",
        "tensors_sha256": tensors_sha256,
        "settings": settings_of(store),
        "created": date.today().isoformat(),
    }
    fit = partial(fitted, options=options, bound=bound)
    checked = cross_fitted(corpus.labels, corpus.scores, folds_of(corpus.groups, options.folds), fit)
    about = {"folds": options.folds, "unit": corpus.unit}
    threshold, map_figures = _map_threshold(store, rows, options)
    held_out = about | figures_of(checked) | map_figures
    return replace(fit(corpus.labels, corpus.scores), map_threshold=threshold, held_out=held_out), checked


def fitted(labels: Labels, scores: Floats, *, options: Options, bound: Mapping[str, Any]) -> Calibration:
    """Fit all of a calibration that comes from scores.

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) in [0, 1].
        options: how.
        bound: what the calibration is bound to: its other attributes, by name.

    Raises:
        CalibrationError: a class is missing.
        InstallError: lir is not installed.
    """
    false_alarms, misses = options.false_alarm_rate, options.miss_rate
    limits = conformal_limits(labels, scores, false_alarm_rate=false_alarms, miss_rate=misses)
    return Calibration(
        ratio=fit_ratio(labels, scores, method=options.method),
        false_alarm_rate=false_alarms,
        miss_rate=misses,
        forged_above=limits.forged_above,
        none_below=limits.none_below,
        thresholds={f"{rate:g}": false_alarm_threshold(labels, scores, rate) for rate in FALSE_ALARM_RATES},
        temperature=fit_temperature(labels, scores),
        map_threshold=None,
        held_out={},
        **bound,
    )


def settings_of(store: PredictionStore) -> dict[str, Any]:
    """What the scores of a store depend on, by config key. Raises CalibrationError if its config cannot be read."""
    try:
        config = yaml.safe_load(store.meta.get("config") or "{}")
    except yaml.YAMLError as error:
        raise CalibrationError(f"{store.root}: the config in its meta.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CalibrationError(f"{store.root}: the config in its meta.json is none")
    return prediction_settings(config)


def _map_threshold(
    store: PredictionStore, rows: Sequence[Mapping[str, Any]], options: Options
) -> tuple[float | None, dict[str, float]]:
    """The map's threshold, and its F1 on the corpus itself beside that of 0.5; nothing without maps or masks."""
    if not store.has_maps or not options.map_images:
        return None, {}
    f1 = f1_by_threshold(store, rows, limit=options.map_images)
    if not len(f1):
        return None, {}
    best = best_threshold(f1)
    means = f1.mean(0)
    return best, {"map_images": len(f1), "map_f1": float(means[int(best * 255)]), "map_f1_at_half": float(means[127])}


def write_verdicts(store: PredictionStore, calibration: Calibration, *, tensors_sha256: str = "") -> Counter[str]:
    """Write `verdicts.csv` into a store: image_id, fake_score, log10_lr, verdict, reason; returns the verdicts' counts.

    Raises:
        CalibrationError: the store is of other weights or settings than the calibration.
        OSError: it cannot be written.
    """
    calibration.check_model(
        weights_sha256=store.meta.get("weights_sha256") or "",
        tensors_sha256=tensors_sha256,
        settings=settings_of(store),
    )
    text, counts = io.StringIO(), Counter[str]()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image_id", "fake_score", "log10_lr", "verdict", "reason", "calibration"])
    for image_id, score in zip(store.ids, store.scores.tolist(), strict=True):
        if image_id in store.without_face:
            lines.writerow([image_id, "", "", NO_FACE, "", ""])
            counts[NO_FACE] += 1
            continue
        found = calibration.verdict(score)
        assert found.log10_lr is not None  # noqa: S101  a calibration always gives one
        counts[found.label] += 1
        said = [f"{found.log10_lr:.4f}", found.label, found.reason, calibration.fingerprint]
        lines.writerow([image_id, repr(score), *said])
    write_whole(store.root / VERDICTS, text.getvalue())
    return counts
