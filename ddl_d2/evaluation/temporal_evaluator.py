"""A Detectron2 evaluator for clips: how well systems tell which seconds are forged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.clip_results import ClipMetricOptions, ClipResult, ClipTable
from ddl_d2.evaluation.forgery_evaluator import ForgeryEvaluator


class TemporalForgeryEvaluator(ForgeryEvaluator):
    """Measures clip scores and forged segments over a dataset, on one or several processes.

    Rows: `image_id`, `is_fake` (0, 1 or absent), `fps`, and `segments`, `video_segments` and `audio_segments` (K×2, in
    frames), absent where they are not known. Outputs: `fake_score`, and `segments`, [confidence, start, end] in seconds
    by falling confidence.
    """

    unit = "clips"

    def __init__(self, *, metric_options: ClipMetricOptions, **others: Any) -> None:
        """Prepare to evaluate one dataset.

        Args:
            metric_options: what is measured.
            others: as of `ForgeryEvaluator`.
        """
        self._metric_options = metric_options
        super().__init__(**others)

    def new_table(self) -> ClipTable:
        """Return an empty table of clips."""
        return ClipTable()

    def table_metrics(self, table: ClipTable) -> dict[str, float]:
        """Compute the metrics of a table."""
        return table.metrics(self._metric_options)

    def settings(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Return what the metrics depend on, for `metrics.json`."""
        return {"ap_curve": self._metric_options.curve}

    def scored(self, row: Mapping[str, Any], output: Mapping[str, Any], seconds: float) -> ClipResult:
        """Compare one prediction with the truth, and store it."""
        image_id, label = row["image_id"], row.get("is_fake")
        if output.get("fake_score") is None or output.get("segments") is None:
            raise EvaluationError(f"{image_id}: a system on clips gives fake_score and segments")
        found = np.asarray(output["segments"], dtype=np.float32).reshape(-1, 3)
        per_second = 1 / float(row["fps"])
        result = clip_result(row, float(output["fake_score"]), found, per_second)
        table = self.new_table()
        table.add(result)  # first checked; the store then keeps only what passed
        if self._store is not None:
            self._store.add(image_id, result.score, label=label, seconds=seconds, segments=found)
        return result


def clip_result(row: Mapping[str, Any], score: float, found: NDArray[np.float32], seconds: float = 1.0) -> ClipResult:
    """Put a prediction beside what a row says is forged.

    Args:
        row: see `TemporalForgeryEvaluator`.
        score: P(fake).
        found: K×3, seconds.
        seconds: that a distance of 1 in the row's segments lasts.
    """
    label = row.get("is_fake")
    label = None if label is None else int(label)
    truth = {key: _segments(row, key, label) for key in ("segments", "video_segments", "audio_segments")}
    kinds = [name for name in ("video", "audio") if truth[f"{name}_segments"] is not None]
    forged = [name for name in kinds if len(truth[f"{name}_segments"])]  # type: ignore[arg-type]  # not None in `kinds`
    where = "both" if len(forged) == len(("video", "audio")) else "".join(forged)
    segments = None if truth["segments"] is None else (truth["segments"] * seconds).astype(np.float32)
    return ClipResult(row["image_id"], label, score, found, segments, where)


def _segments(row: Mapping[str, Any], key: str, label: int | None) -> NDArray[np.float64] | None:
    """Return the segments under a key, K×2; None if they are not known. A real clip has none."""
    if row.get(key) is not None:
        return np.asarray(row[key], dtype=np.float64).reshape(-1, 2)
    return np.zeros((0, 2)) if label == 0 else None
