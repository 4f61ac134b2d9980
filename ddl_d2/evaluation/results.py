"""The table every metric is computed from: one short row per image, however large its masks.

Ranks exchange these rows and nothing else. Sorting them by `image_id` makes every number, to the last bit, independent
of how the images were spread over batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.errors import listed
from ddl_d2.evaluation.functional import (
    accuracy,
    average_precision,
    equal_error_rate,
    final_score,
    localization_metrics,
    roc_auc,
    scores_of_videos,
)
from ddl_d2.predictions.layout import SCORE_TOLERANCE

COUNT_TOLERANCE = 1e-3
"""How far two pixel counts of one image may lie apart, as a share of its pixels (scores: `SCORE_TOLERANCE`)."""

METRIC_NAMES = (
    *("auc", "f1", "iou", "final", "pooled_f1", "pooled_iou", "miou", "all_f1", "all_iou"),
    *("accuracy", "eer", "ap"),
    *("num_images", "num_fake", "num_real", "num_localized"),
    *("num_fake_without_mask", "num_empty_masks", "num_resized_masks"),
)
"""The keys of `ResultTable.metrics`, in the order they are printed."""

VIDEO_METRIC_NAMES = ("video_auc", "video_accuracy", "video_eer", "video_ap", "num_videos")
"""The keys that follow where the images are frames of videos."""

PER_TYPE_METRIC_NAMES = ("auc", "video_auc", "num_fake")
"""The keys that follow for each forgery type, with `_` and its name: `auc_Deepfakes` is its fakes against all real."""


class ImageResult(NamedTuple):
    """What is kept of one evaluated image.

    Attributes:
        image_id: unique in the dataset.
        is_fake: 0 real, 1 fake, None unknown.
        score: P(fake) in [0, 1], None if the system gives none.
        counts: (TP, FP, FN, TN) in pixels, None if there is no forgery map or no truth to compare it with.
        has_mask: whether the truth is known: always for a real image, for a fake if it has a mask file.
        height: of the original image, in pixels.
        width: likewise.
        resized_mask: whether the mask file had another size than the image and was brought to it.
        video_id: the video that the image is a frame of, or None.
        has_face: False where images are cropped to faces and none was found: a frame is left out of its video's score.
        forgery_type: how a fake was forged, or None.
    """

    image_id: str
    is_fake: int | None
    score: float | None
    counts: tuple[int, int, int, int] | None
    has_mask: bool
    height: int
    width: int
    resized_mask: bool = False
    video_id: str | None = None
    has_face: bool = True
    forgery_type: str | None = None


def check_result(row: ImageResult) -> None:
    """Raise EvaluationError, naming the image, for values that cannot be right."""
    if row.is_fake not in (0, 1, None):
        raise EvaluationError(f"{row.image_id}: is_fake is {row.is_fake!r}, expected 0 (real) or 1 (fake)")
    if row.score is not None and not 0 <= row.score <= 1:  # NaN fails both comparisons
        raise EvaluationError(f"{row.image_id}: the fake score is {row.score}, expected a number in [0, 1]")
    if row.counts is not None and (min(row.counts) < 0 or sum(row.counts) != row.height * row.width):
        raise EvaluationError(
            f"{row.image_id}: pixel counts {row.counts} do not add up to {row.height} x {row.width} pixels"
        )


class ResultTable:
    """A table of `ImageResult`s that grows, and the metrics computed from it."""

    def __init__(self, rows: Iterable[ImageResult] = ()) -> None:
        self._rows: list[ImageResult] = []
        for row in rows:
            self.add(row)

    def __len__(self) -> int:
        """Count the rows added, repeated ones included."""
        return len(self._rows)

    def __iter__(self) -> Iterator[ImageResult]:
        return iter(self._rows)

    def add(self, row: ImageResult) -> None:
        """Append one row. Raises as `check_result`."""
        check_result(row)
        self._rows.append(row)

    def distinct(self) -> list[ImageResult]:
        """Return the rows sorted by `image_id`, each image once.

        Samplers that pad to equal lengths repeat images. Repeats may differ by rounding (`SCORE_TOLERANCE`,
        `COUNT_TOLERANCE`), and then the smallest row is kept, whichever rank it came from.

        Raises:
            EvaluationError: repeats differ by more: two images or two models share an id.
        """
        kept: list[ImageResult] = []
        for row in sorted(self._rows, key=_sort_key):
            if not kept or kept[-1].image_id != row.image_id:
                kept.append(row)
            elif not _same_image(kept[-1], row):
                raise EvaluationError(f"{row.image_id} was evaluated twice with unlike results: {kept[-1]} and {row}")
        return kept

    def check_complete(self, expected_ids: Iterable[str]) -> None:
        """Raise EvaluationError unless the images of the table are exactly the expected ones."""
        check_ids({row.image_id for row in self._rows}, set(expected_ids), "images")

    def metrics(
        self, *, threshold: float = 0.5, empty_score: str = "skip", video_score: str = "mean"
    ) -> dict[str, float]:
        """Compute all metrics as fractions and counts.

        Args:
            threshold: of image accuracy, fake being score > threshold; that of pixels was applied when the counts were
                made.
            empty_score: as in `functional.localization_metrics`.
            video_score: as in `functional.video_score`.

        Returns:
            The values of `METRIC_NAMES`, of `VIDEO_METRIC_NAMES` if the images are frames, and of
            `PER_TYPE_METRIC_NAMES` for each forgery type, sorted. If no image has a score, the detection metrics are
            NaN; if none has counts, the localization metrics are.

        Raises:
            EvaluationError: only some images have a score, a map or a video, the label of one is unknown, or a video
                has both labels.
        """
        rows = self.distinct()
        _check_uniform(rows)
        labels = np.array([row.is_fake for row in rows], dtype=np.int64)
        result = dict.fromkeys(METRIC_NAMES, math.nan)
        scores = None
        if rows and rows[0].score is not None:
            scores = np.array([row.score for row in rows], dtype=np.float64)
            result.update(_detection(labels, scores, threshold))
        result["num_localized"] = result["num_empty_masks"] = 0
        if any(row.counts is not None for row in rows):
            counts = np.array([row.counts or (0, 0, 0, 0) for row in rows], dtype=np.int64)
            has_counts = np.array([row.counts is not None for row in rows])
            localization = localization_metrics(counts, labels, has_mask=has_counts, empty_score=empty_score)
            result.update((key, value) for key, value in localization.items() if key in result)
        result["final"] = final_score(result["auc"], result["f1"], result["iou"])
        result["num_images"] = len(rows)
        result["num_fake"] = int(labels.sum())
        result["num_real"] = len(rows) - result["num_fake"]
        result["num_fake_without_mask"] = sum(row.is_fake == 1 and not row.has_mask for row in rows)
        result["num_resized_masks"] = sum(row.resized_mask for row in rows)
        if rows and rows[0].video_id is not None:
            result.update(_of_videos(rows, labels, threshold, video_score))
        kinds = np.array([(row.forgery_type or "") if row.is_fake else "" for row in rows])
        for name in sorted(set(kinds.tolist()) - {""}):
            chosen = np.flatnonzero((labels == 0) | (kinds == name))
            of_type = [rows[index] for index in chosen] if rows[0].video_id is not None else []
            of_type_scores = None if scores is None else scores[chosen]
            result.update(_of_type(name, labels[chosen], of_type_scores, of_type, video_score))
        return result


def check_ids(present: set[str], expected: set[str], what: str) -> None:
    """Raise EvaluationError unless what was scored ("images", say) is exactly what was expected, by id."""
    if missing := sorted(expected - present):
        other_form = {normalize("NFC", name) for name in missing} & {normalize("NFC", name) for name in present}
        hint = (
            f". {len(other_form)} of them were under the same names in another form of Unicode (NFC, NFD): predict "
            f"the {what} where they are evaluated, or rename them alike"
        )
        raise EvaluationError(
            f"{len(missing)} of {len(expected)} {what} of the dataset were not scored: {listed(missing)}"
            + (hint if other_form else "")
        )
    if unknown := sorted(present - expected):
        raise EvaluationError(f"{len(unknown)} scored {what} are not in the dataset: {listed(unknown)}")


def _detection(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    return {
        "auc": roc_auc(labels, scores),
        "accuracy": accuracy(labels, scores, threshold),
        "eer": equal_error_rate(labels, scores),
        "ap": average_precision(labels, scores),
    }


def _of_videos(rows: list[ImageResult], labels: np.ndarray, threshold: float, rule: str) -> dict[str, float]:
    """Compute `VIDEO_METRIC_NAMES` of frames that all have a video and a label."""
    result = dict.fromkeys(VIDEO_METRIC_NAMES, math.nan)
    ids = [str(row.video_id) for row in rows]
    with_face = {video_id for video_id, row in zip(ids, rows, strict=True) if row.has_face}
    if missing := sum(not row.has_face for row in rows):  # only where images are cropped to faces
        result["num_frames_without_face"] = missing
        result["num_videos_without_face"] = len(set(ids)) - len(with_face)
    result["num_videos"] = len(set(ids))
    scores = [row.score for row in rows if row.score is not None]
    if not scores:
        return result
    try:
        _, video_labels, video_scores = scores_of_videos(
            ids, labels, scores, rule, has_face=[row.has_face for row in rows]
        )
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    result.update((f"video_{key}", value) for key, value in _detection(video_labels, video_scores, threshold).items())
    return result


def _of_type(
    name: str, labels: np.ndarray, scores: np.ndarray | None, frames: list[ImageResult], rule: str
) -> dict[str, float]:
    """Compute `PER_TYPE_METRIC_NAMES` of the fakes of one type and all real images; `frames` are all if they are."""
    found: dict[str, float] = {"auc": math.nan, "video_auc": math.nan, "num_fake": int(labels.sum())}
    if scores is not None:
        found["auc"] = roc_auc(labels, scores)
    if frames:
        found["video_auc"] = _of_videos(frames, labels, 0.5, rule)["video_auc"]
    else:
        del found["video_auc"]
    return {f"{key}_{name}": found[key] for key in PER_TYPE_METRIC_NAMES if key in found}


def _sort_key(row: ImageResult) -> tuple[Any, ...]:
    return (row.image_id, -1.0 if row.score is None else row.score, row.counts or ())


def _same_image(first: ImageResult, second: ImageResult) -> bool:
    """Tell whether two rows of one id are the same image and, up to rounding, the same prediction."""

    def plain(row: ImageResult) -> tuple[Any, ...]:
        same = (row.is_fake, row.score is None, row.counts is None, row.has_mask)
        return (*same, row.height, row.width, row.video_id, row.has_face)

    if plain(first) != plain(second):
        return False
    if first.score is not None and second.score is not None and abs(first.score - second.score) > SCORE_TOLERANCE:
        return False
    if first.counts is None or second.counts is None:
        return True
    allowed = COUNT_TOLERANCE * first.height * first.width
    return all(abs(a - b) <= allowed for a, b in zip(first.counts, second.counts, strict=True))


def _check_uniform(rows: list[ImageResult]) -> None:
    """Raise EvaluationError if a label is unknown, or if some images lack a score or a map that others have."""
    problems: Mapping[str, list[str]] = {
        "have no label": [row.image_id for row in rows if row.is_fake is None],
        "have no fake score though others do": [row.image_id for row in rows if row.score is None],
        "have no forgery map though others do": [row.image_id for row in rows if row.counts is None and row.has_mask],
        "have no video_id though others do": [row.image_id for row in rows if row.video_id is None],
    }
    with_mask = sum(row.has_mask for row in rows)
    for (problem, ids), total in zip(problems.items(), (-1, len(rows), with_mask, len(rows)), strict=True):
        if ids and len(ids) != total:
            raise EvaluationError(f"{len(ids)} of {len(rows)} images {problem}: {listed(ids)}")
