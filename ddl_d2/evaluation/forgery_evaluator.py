"""A Detectron2 evaluator for image scores and forgery maps, which measures every system of this project.

Legend: `H`, `W` pixels of the original image. Inputs are the mapper's rows, outputs the model's (docs/metrics.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from numpy.typing import NDArray

from ddl_d2.errors import EvaluationError, ImageReadError, StoreError
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.functional import EMPTY_SCORES, VIDEO_SCORES
from ddl_d2.evaluation.map_counts import count_map
from ddl_d2.evaluation.pipeline import Pipeline
from ddl_d2.evaluation.report import metrics_table, write_metrics
from ddl_d2.evaluation.results import ImageResult, ResultTable, check_result
from ddl_d2.io.bad_files import BadFile
from ddl_d2.predictions.maps import quantize_map
from ddl_d2.predictions.writer import PredictionStoreWriter
from ddl_d2.utils.distributed import wait_for_all
from ddl_d2.utils.limits import MAX_PIXELS

_LARGE = ("image", "views", "crops", "instances", "frames", "audio")
"""What no metric asks for, of rows and outputs."""

_MAP_SLACK = 1e-3  # interpolation leaves [0, 1] by rounding; a map farther out is not a probability


class ForgeryEvaluator(DatasetEvaluator):
    """Measures detection and localization over a dataset, on one or several processes.

    An image or mask that cannot be read does not end the evaluation where it is met: the others are scored, and
    `evaluate` then raises IncompleteEvaluationError, which lists all such files.

    Attributes:
        unit: what is evaluated, in words.
    """

    unit = "images"

    def __init__(
        self,
        *,
        dataset_rows: Sequence[Mapping[str, Any]] | str,
        output_dir: str | os.PathLike[str] | None = None,
        threshold: float = 0.5,
        empty_score: str = "skip",
        video_score: str = "mean",
        store: PredictionStoreWriter | None = None,
        distributed: bool = True,
        max_pixels: int = MAX_PIXELS,
        subset_of: int | None = None,
        threads: int = 0,
    ) -> None:
        """Prepare to evaluate one dataset.

        Args:
            dataset_rows: dataset dicts, or the name of a registered dataset; says which images must have been scored.
            output_dir: where `metrics.json` goes; None writes none.
            threshold: in [0, 1); a pixel is forged, and an image fake, above it (strictly).
            empty_score: "skip", "0" or "1", see `functional.localization_metrics`.
            video_score: "mean", "top_frames" or "max": how the scores of frames with a `video_id` become their video's.
            store: keeps every prediction; completed by `evaluate`, so it serves a single evaluation.
            distributed: gather over all processes; False evaluates what this process saw.
            max_pixels: the most pixels a forgery mask may have.
            subset_of: the number of images of the dataset, where `dataset_rows` are a part of it; log and metrics say
                so.
            threads: how many read masks, compare, and write maps while the system predicts the next images; what they
                find wrong is raised by a later call. 0: `process` does it itself.

        Raises:
            EvaluationError: an unknown option.
            KeyError: an unregistered dataset.
        """
        if not 0 <= threshold < 1:
            raise EvaluationError(f"the threshold must be in [0, 1), got {threshold}")
        if empty_score not in EMPTY_SCORES:
            raise EvaluationError(f"empty_score is one of {', '.join(EMPTY_SCORES)}, not {empty_score!r}")
        if video_score not in VIDEO_SCORES:
            raise EvaluationError(f"video_score is one of {', '.join(VIDEO_SCORES)}, not {video_score!r}")
        self._rows = DatasetCatalog.get(dataset_rows) if isinstance(dataset_rows, str) else dataset_rows
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._threshold = threshold
        self._empty_score = empty_score
        self._video_score = video_score
        self._store = store
        self._distributed = distributed
        self._max_pixels = max_pixels
        self._subset_of = subset_of
        self._work = Pipeline(threads)
        self._logger = logging.getLogger(__name__)
        self._table = self.new_table()
        self._bad: dict[str, BadFile] = {}
        self._last_time = time.perf_counter()

    def reset(self) -> None:
        """Forget all images. Raises EvaluationError if a store has been written to: a store cannot forget."""
        if self._store is not None and len(self._table):
            raise EvaluationError("an evaluator with a prediction store serves one evaluation: make a new one")
        self._work.cancel()
        self._table = self.new_table()
        self._bad = {}
        self._last_time = time.perf_counter()

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take one batch.

        The forgery mask is read from its file at original size, never taken from the mapper, which may have resized
        it.

        Args:
            inputs: mapper's rows: `image_id`, `is_fake` (0, 1 or absent), `mask_file_name` or `fully_forged` (a
                fake's), `height`, `width` in pixels of the original image, `video_id` (a frame's) and `forgery_type`
                (a fake's, where it is known). Where the image could not be read: `image_id` and `unreadable`, an
                ImageReadError; its output is not looked at.
            outputs: `fake_score`, P(fake) as a float or 0-d tensor, and `forgery_map`, float tensor or array H x W in
                [0, 1]; either may be absent or None, but then for all images. `has_face`, False where no face was found
                to be predicted; absent, it is True.

        Raises:
            EvaluationError: an output is impossible; the message names the image.
        """
        seconds = (time.perf_counter() - self._last_time) / max(1, len(inputs))
        for row, output in zip(inputs, outputs, strict=True):
            size = getattr(output.get("forgery_map"), "nbytes", 0)
            self._work.add(partial(self._process_one, _facts(row), _facts(output), seconds), self._take, size)
        self._last_time = time.perf_counter()

    def _take(self, found: Any) -> None:
        """Keep what came of an image."""
        if not isinstance(found, BadFile):
            self._table.add(found)
            return
        self._bad[found.image_id] = found
        self._logger.warning("%s is not scored: %s", found.image_id, found)

    def _process_one(self, row: Mapping[str, Any], output: Mapping[str, Any], seconds: float) -> Any:
        """Score an image, and store its prediction; or say what cannot be read. Threads may do so."""
        try:
            if "unreadable" in row:
                raise row["unreadable"]
            return self.scored(row, output, seconds)
        except ImageReadError as error:
            return BadFile.of(-1, row, error)

    def new_table(self) -> Any:
        """Return an empty table of what `scored` gives."""
        return ResultTable()

    def table_metrics(self, table: Any) -> dict[str, float]:
        """Compute the metrics of a table."""
        return table.metrics(threshold=self._threshold, empty_score=self._empty_score, video_score=self._video_score)

    def settings(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Return what the metrics depend on, for `metrics.json`."""
        settings: dict[str, Any] = {"threshold": self._threshold, "empty_score": self._empty_score}
        if "num_videos" in metrics:
            settings["video_score"] = self._video_score
        return settings

    def scored(self, row: Mapping[str, Any], output: Mapping[str, Any], seconds: float) -> Any:
        """Compare one prediction with the truth, and store it; return a row of the table. Threads may do so."""
        image_id, label = row["image_id"], row.get("is_fake")
        label = None if label is None else int(label)
        score = None if output.get("fake_score") is None else float(output["fake_score"])
        forgery_map = None if output.get("forgery_map") is None else _map_array(output["forgery_map"], image_id)
        height, width = int(row["height"]), int(row["width"])
        if score is None and forgery_map is None:
            raise EvaluationError(f"{image_id}: the model gave neither fake_score nor forgery_map")

        found = count_map(row, forgery_map, height, width, threshold=self._threshold, max_pixels=self._max_pixels)
        # First checked; the store then keeps only what passed.
        counts, has_mask, resized = found
        video_id, kind = row.get("video_id"), row.get("forgery_type")
        has_face = bool(output.get("has_face", True))
        result = ImageResult(image_id, label, score, counts, has_mask, height, width, resized, video_id, has_face, kind)
        check_result(result)
        if self._store is not None:
            if score is None:
                raise EvaluationError(f"{image_id}: a prediction store needs a fake score")
            stored_map = None if forgery_map is None else quantize_map(forgery_map)
            self._store.add(image_id, score, stored_map, label=label, seconds=seconds, has_face=has_face)
        return result

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Gather, check that every image was scored, complete the store, compute, write `metrics.json`.

        All processes must call it. Where files could not be read, `metrics.json` is about the other images, says
        `"complete": false` and lists the files, and the store is left incomplete.

        Returns:
            `{"ddl": metrics}` with the keys of `ResultTable.metrics`, all numbers, on the main process; `{}`
            elsewhere, and where no image has a label.

        Raises:
            EvaluationError: on every process, unless each image of the dataset was scored once.
            IncompleteEvaluationError: on every process, where files could not be read.
        """
        self._work.finish()
        if self._distributed:
            wait_for_all()
        bad = self._all_bad()
        table, problem = self._gathered(bad)
        self._raise_everywhere(problem)
        if bad and self._store is not None:
            self._store.abort()
        elif not bad:
            self._raise_everywhere(self._close_store())
        metrics: dict[str, float] = {}
        problem = None
        if table is not None and (any(row.is_fake is not None for row in table) or not len(table)):
            try:
                metrics = self.table_metrics(table)
            except EvaluationError as error:
                problem = str(error)
        self._raise_everywhere(problem)
        if metrics and self._subset_of is not None:
            metrics["num_in_dataset"] = self._subset_of
        if table is not None and (metrics or bad):
            self._write(metrics, bad)
        if bad:
            where = "" if self._output_dir is None else f" {self._output_dir / 'metrics.json'} is about the others."
            raise IncompleteEvaluationError(bad, len(self._rows), where)
        if not metrics:
            return OrderedDict()
        part = "" if self._subset_of is None else f", a part of the dataset's {self._subset_of}"
        self._logger.info("Evaluation of %d %s%s:\n%s", len(self._rows), self.unit, part, metrics_table(metrics))
        return OrderedDict(ddl=metrics)

    def _write(self, metrics: Mapping[str, float], bad: list[BadFile]) -> None:
        if self._output_dir is None:
            return
        settings = self.settings(metrics) | {"complete": not bad}
        if bad:
            settings["unreadable"] = [{"image_id": b.image_id, "file": b.file, "reason": b.reason} for b in bad]
        write_metrics(self._output_dir / "metrics.json", {**metrics, **settings})

    def _all_bad(self) -> list[BadFile]:
        """Return what could not be read on any process, sorted by image."""
        parts = comm.all_gather(self._bad) if self._distributed else [self._bad]
        return sorted({name: bad for part in parts for name, bad in part.items()}.values(), key=lambda b: b.image_id)

    def _gathered(self, bad: list[BadFile]) -> tuple[Any, str | None]:
        """Return the table of all images but the `bad` ones, and what is wrong with it, if anything.

        Both are None on other processes than the main one.
        """
        if not self._distributed:
            table = list(self._table)
        else:
            # Some 70 bytes for each image, whatever its size: no map and no mask travels.
            parts = comm.gather(list(self._table))
            if not comm.is_main_process():
                return None, None
            table = [row for part in parts for row in part]
        unreadable = {b.image_id for b in bad}
        # Where a padded list showed an image to two processes, one of them may have read it.
        table = self._table_of(row for row in table if row.image_id not in unreadable)
        try:
            table.check_complete(row["image_id"] for row in self._rows if row["image_id"] not in unreadable)
            table.distinct()
        except EvaluationError as error:
            return table, str(error)
        return table, None

    def _table_of(self, rows: Iterable[Any]) -> Any:
        table = self.new_table()
        for row in rows:
            table.add(row)
        return table

    def _close_store(self) -> str | None:
        """Complete the store; return what went wrong with it on this process, if anything."""
        if self._store is None:
            return None
        try:
            self._store.close(wait_for_all if self._distributed else None)
        except (OSError, StoreError) as error:
            return f"the prediction store could not be completed: {error}"
        return None

    def _raise_everywhere(self, problem: str | None) -> None:
        """Raise a problem of any process on all: one process leaving alone would keep the others waiting for it.

        The main process may have worked for long: on the store, or on the metrics.
        """
        if self._distributed:
            wait_for_all()
        problems = comm.all_gather(problem) if self._distributed else [problem]
        for message in problems:
            if message is not None:
                raise EvaluationError(message)


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked of a row or an output here, without what holds much memory besides."""
    return {key: value for key, value in row.items() if key not in _LARGE}


def _map_array(forgery_map: Any, image_id: str) -> NDArray[np.floating]:
    """Return a tensor or an array as a float NumPy array in [0, 1]. Raises EvaluationError naming the image."""
    if hasattr(forgery_map, "detach"):
        forgery_map = forgery_map.detach()
        if forgery_map.is_floating_point() and forgery_map.element_size() < 4:  # NumPy has no bfloat16
            forgery_map = forgery_map.float()
        forgery_map = forgery_map.cpu().numpy()
    array = np.asarray(forgery_map)
    if array.ndim != 2 or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        raise EvaluationError(f"{image_id}: a forgery map is a float H x W array, got {array.dtype} {array.shape}")
    low, high = float(array.min()), float(array.max())
    if not (low >= -_MAP_SLACK and high <= 1 + _MAP_SLACK):  # also true of NaN
        raise EvaluationError(f"{image_id}: forgery map values span [{low}, {high}], expected [0, 1]")
    return array
