"""Measuring a model on a labeled dataset under corruptions: every image, every corruption, every level.

One image is held at a time. What was found of it is a line of `results.jsonl`, so that a killed run goes on where it
ended; its metrics are those of any evaluation (`evaluation.results`), one table for each condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.data.transforms.corruptions import CORRUPTIONS, LEVELS, Delivery
from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.functional import pixel_counts
from ddl_d2.evaluation.results import ImageResult
from ddl_d2.inference.model import Model
from ddl_d2.inference.prediction import Prediction
from ddl_d2.inference.results_file import ResultsFile
from ddl_d2.inference.sources import Source
from ddl_d2.io.bad_files import BadFile
from ddl_d2.io.rows import read_row_image
from ddl_d2.predictions.verdict import NO_FACE
from ddl_d2.utils.threads import in_order

AS_IT_IS = "none"
"""The corruption of the images as they are; its level is 0."""


class Condition(NamedTuple):
    """A corruption at a level, or the images as they are."""

    corruption: str
    level: int

    def __str__(self) -> str:
        return f"{self.corruption}/{self.level}"

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read what `str` gives."""
        corruption, _, level = text.partition("/")
        return cls(corruption, int(level))

    def transform(self, image_id: str, size: tuple[int, int], seed: int) -> Transform:
        """The transform of one image of (height, width) pixels."""
        if self.corruption == AS_IT_IS:
            return NoOpTransform()
        return Delivery(self.corruption, self.level).transform(image_id, size, seed)


class Found(NamedTuple):
    """What was found of one image under one condition.

    Attributes:
        result: its row of a result table.
        verdict: as of any image.
    """

    result: ImageResult
    verdict: str


def conditions_of(names: Sequence[str] = (), levels: Sequence[int] = LEVELS) -> list[Condition]:
    """List the conditions of a run: the images as they are, and each corruption at each level.

    Args:
        names: of `corruptions.CORRUPTIONS`; none: all.
        levels: of `corruptions.LEVELS`.

    Raises:
        InputError: an unknown corruption.
    """
    if unknown := [name for name in names if name not in CORRUPTIONS]:
        raise InputError(f"there is no corruption {', '.join(unknown)}; there are {', '.join(CORRUPTIONS)}")
    chosen = [name for name in CORRUPTIONS if not names or name in names]
    return [Condition(AS_IT_IS, 0), *(Condition(name, level) for name in chosen for level in sorted(set(levels)))]


def measure_robustness(
    model: Model,
    rows: Sequence[Mapping[str, Any]],
    conditions: Sequence[Condition],
    results: ResultsFile,
    *,
    seed: int = 0,
    batch_size: int = 8,
    workers: int = 1,
) -> Iterator[dict[Condition, Found]]:
    """Predict every image under every condition, but for those that the results file knows.

    Args:
        model: the model.
        rows: dataset dicts with labels.
        conditions: of `conditions_of`.
        results: open; gets a line for each image.
        seed: of what is drawn, which depends on it, the image's id and the corruption alone.
        batch_size: images that the model is given at once.
        workers: threads that corrupt images.

    Yields:
        for each image what was found under each condition.

    Raises:
        IncompleteEvaluationError: when all others are done, for images and masks that cannot be read.
    """
    bad: list[BadFile] = []
    for number, row in enumerate(rows):
        # Frames of a video share its file, but not their id.
        key = Path(row["image_id"] if "frame_index" in row else row["file_name"])
        known = results.known(key)
        if known is None:
            try:
                fresh = _of_image(model, row, conditions, seed=seed, batch_size=batch_size, workers=workers)
            except ImageReadError as error:
                bad.append(BadFile.of(number, row, error))
                continue
            known = results.add(key, {"conditions": {str(name): _plain(one) for name, one in fresh.items()}})
        yield {Condition.parse(name): _found(row, values) for name, values in known["conditions"].items()}
    if bad:
        raise IncompleteEvaluationError(bad, len(rows))


def _of_image(
    model: Model,
    row: Mapping[str, Any],
    conditions: Sequence[Condition],
    *,
    seed: int,
    batch_size: int,
    workers: int,
) -> dict[Condition, Found]:
    image = read_row_image(row, max_pixels=model.cfg.INPUT.MAX_PIXELS)
    truth = read_forgery_mask(row, *image.shape[:2], max_pixels=model.cfg.INPUT.MAX_PIXELS)
    mask = None if truth is None else truth.mask.view(np.uint8)
    found: dict[Condition, Found] = {}
    remaining = iter(conditions)
    while chunk := list(islice(remaining, batch_size)):
        changes = [one.transform(row["image_id"], image.shape[:2], seed) for one in chunk]
        images: list[Source] = list(in_order(partial(_corrupted, image), changes, workers))
        for one, change, prediction in zip(chunk, changes, model.predict(images), strict=True):
            moved = None if mask is None else change.apply_segmentation(mask)
            found[one] = _scored(row, prediction, moved)
    return found


def _corrupted(image: np.ndarray, change: Transform) -> np.ndarray:
    return np.ascontiguousarray(change.apply_image(image))


def _scored(row: Mapping[str, Any], prediction: Prediction, mask: np.ndarray | None) -> Found:
    forged = prediction.forgery_map > prediction.summary.map_threshold
    height, width = forged.shape
    result = ImageResult(
        row["image_id"],
        int(row["is_fake"]),
        prediction.fake_score,
        None if mask is None else pixel_counts(forged, mask.astype(bool)),
        mask is not None,
        height,
        width,
        video_id=row.get("video_id"),
        has_face=prediction.verdict != NO_FACE,
        forgery_type=row.get("forgery_type"),
    )
    return Found(result, prediction.verdict)


def _plain(found: Found) -> list[Any]:
    """As a line of the results file holds it."""
    one = found.result
    return [one.score, found.verdict, one.counts, one.height, one.width]


def _found(row: Mapping[str, Any], values: Sequence[Any]) -> Found:
    """What `_plain` made, read back."""
    score, verdict, counts, height, width = values
    result = ImageResult(
        row["image_id"],
        int(row["is_fake"]),
        score,
        None if counts is None else tuple(counts),
        counts is not None,
        height,
        width,
        video_id=row.get("video_id"),
        has_face=verdict != NO_FACE,
        forgery_type=row.get("forgery_type"),
    )
    return Found(result, verdict)
