"""Evaluation without a model: a prediction store against a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import EvaluationError, ImageReadError, StoreError
from ddl_d2.evaluation.clip_results import ClipTable
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.map_counts import count_map
from ddl_d2.evaluation.results import ImageResult, ResultTable, check_ids
from ddl_d2.evaluation.temporal_evaluator import clip_result
from ddl_d2.io.bad_files import BadFile
from ddl_d2.io.rows import read_row_size
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.utils.threads import in_order


def table_from_store(
    store: PredictionStore,
    rows: Sequence[Mapping[str, Any]],
    *,
    threshold: float = 0.5,
    intersection: bool = False,
    workers: int = 1,
) -> ResultTable:
    """Score a store's predictions against dataset dicts; images are not decoded, only their headers are read.

    Args:
        store: the predictions.
        rows: dataset dicts (`file_name`, `image_id`, `is_fake`, `mask_file_name`, `video_id`, `frame_index`,
            `forgery_type`).
        threshold: a pixel is forged above it, see `functional.binarize_map`.
        intersection: evaluate the images both sides have, instead of refusing when they differ.
        workers: threads that read maps and masks.

    Returns:
        The table; its numbers do not depend on `workers`.

    Raises:
        EvaluationError: images are missing on either side, labels contradict each other, or a map has another size
            than its image.
        IncompleteEvaluationError: once all have been tried, for images, masks and maps that cannot be read.
    """
    predicted = {image_id: index for index, image_id in enumerate(store.ids)}
    wanted = [row for row in rows if row["image_id"] in predicted] if intersection else list(rows)
    if not wanted:
        raise EvaluationError(f"nothing to evaluate: none of {len(rows)} images is among {len(predicted)} predictions")

    def one(row: Mapping[str, Any]) -> ImageResult | BadFile:
        index = predicted[row["image_id"]]
        return _evaluate_one(store, row, float(store.scores[index]), int(store.labels[index]), threshold)

    if not intersection:
        stand_ins = (ImageResult(image_id, None, None, None, False, 0, 0) for image_id in predicted)
        ResultTable(stand_ins).check_complete(row["image_id"] for row in wanted)
    return _all_read(in_order(one, wanted, workers), len(wanted))


def clip_table_from_store(
    store: PredictionStore, rows: Sequence[Mapping[str, Any]], *, intersection: bool = False
) -> ClipTable:
    """Score a store of clips against dataset dicts (`image_id`, `is_fake`, and segments in seconds).

    Args:
        store: the predictions, with segments.
        rows: dataset dicts.
        intersection: evaluate the clips both sides have, instead of refusing when they differ.

    Raises:
        EvaluationError: clips are missing on either side, or labels contradict each other.
    """
    predicted = {image_id: index for index, image_id in enumerate(store.ids)}
    wanted = [row for row in rows if row["image_id"] in predicted] if intersection else list(rows)
    if not wanted:
        raise EvaluationError(f"nothing to evaluate: none of {len(rows)} clips is among {len(predicted)} predictions")
    if not intersection:
        check_ids(set(predicted), {row["image_id"] for row in wanted}, "clips")
    table = ClipTable()
    for row in wanted:
        index = predicted[row["image_id"]]
        _check_label(row["image_id"], row.get("is_fake"), int(store.labels[index]))
        found = store.segments[row["image_id"]].astype(np.float32)
        table.add(clip_result(row, float(store.scores[index]), found))
    return table


def _check_label(image_id: str, label: int | None, stored: int) -> None:
    """Raise EvaluationError if the labels of the dataset and of the store contradict each other."""
    if label is not None and stored >= 0 and stored != label:
        raise EvaluationError(f"{image_id}: the dataset's label is {label}, the prediction store's {stored}")


def _all_read(results: Iterable[ImageResult | BadFile], num_images: int) -> ResultTable:
    """Return the table of what was found. Raises IncompleteEvaluationError if anything could not be read."""
    table, bad = ResultTable(), []
    for result in results:
        if isinstance(result, BadFile):
            bad.append(result)
        else:
            table.add(result)
    if bad:
        raise IncompleteEvaluationError(bad, num_images)
    return table


def _evaluate_one(
    store: PredictionStore, row: Mapping[str, Any], score: float, stored_label: int, threshold: float
) -> ImageResult | BadFile:
    image_id, label = row["image_id"], row.get("is_fake")
    _check_label(image_id, label, stored_label)
    try:
        height, width = read_row_size(row, max_pixels=store.max_pixels)
        forgery_map = _stored_map(store, image_id) if store.has_maps else None
        found = count_map(row, forgery_map, height, width, threshold=threshold, max_pixels=store.max_pixels)
    except ImageReadError as error:
        return BadFile.of(-1, row, error)
    counts, has_mask, resized = found
    has_face = image_id not in store.without_face
    video_id, kind = row.get("video_id"), row.get("forgery_type")
    return ImageResult(image_id, label, score, counts, has_mask, height, width, resized, video_id, has_face, kind)


def _stored_map(store: PredictionStore, image_id: str) -> NDArray[np.uint8]:
    try:
        return store.read_map(image_id)
    except StoreError as error:
        raise ImageReadError(f"the forgery map of {image_id}", str(error)) from error
