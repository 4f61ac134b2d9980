"""The table that metrics of clips are computed from: what was found in each, and what is forged in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.functional import roc_auc
from ddl_d2.evaluation.functional.temporal import (
    AP_CURVES,
    Clip,
    ddl_av_metrics,
    segment_average_precision,
    segment_average_recall,
)
from ddl_d2.evaluation.results import check_ids
from ddl_d2.predictions.layout import SCORE_TOLERANCE


class ClipResult(NamedTuple):
    """What is kept of one evaluated clip.

    Attributes:
        image_id: unique in the dataset.
        is_fake: 0 real, 1 fake, None unknown.
        score: P(fake) in [0, 1].
        found: float32 K×3, [confidence, start, end] in seconds, by falling confidence.
        segments: float32 N×2, the forged seconds; None if they are not known.
        forged_in: "video", "audio" or "both"; "" for a real clip, or if it is not known.
    """

    image_id: str
    is_fake: int | None
    score: float
    found: NDArray[np.float32]
    segments: NDArray[np.float32] | None
    forged_in: str


@dataclass(frozen=True, kw_only=True)
class ClipMetricOptions:
    """What is measured of clips.

    Attributes:
        overlaps: of AP.
        numbers: of AR.
        curve: of AP, "full" or "published", see `functional.temporal`.
    """

    overlaps: Sequence[float] = (0.5, 0.75, 0.95)
    numbers: Sequence[int] = (100, 50, 20, 10)
    curve: str = "full"

    def __post_init__(self) -> None:
        if self.curve not in AP_CURVES:
            raise EvaluationError(f"the AP curve is one of {', '.join(AP_CURVES)}, not {self.curve!r}")


@dataclass
class ClipTable:
    """A table of `ClipResult`s that grows, and the metrics computed from it."""

    rows: list[ClipResult] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ClipResult]:
        return iter(self.rows)

    def add(self, row: ClipResult) -> None:
        """Append one row. Raises EvaluationError, naming the clip, for values that cannot be right."""
        if row.is_fake not in (0, 1, None):
            raise EvaluationError(f"{row.image_id}: is_fake is {row.is_fake!r}, expected 0 (real) or 1 (fake)")
        if not 0 <= row.score <= 1:  # NaN fails both comparisons
            raise EvaluationError(f"{row.image_id}: the fake score is {row.score}, expected a number in [0, 1]")
        found = row.found
        if not np.isfinite(found).all() or (found[:, 2] < found[:, 1]).any() or (np.diff(found[:, 0]) > 0).any():
            raise EvaluationError(
                f"{row.image_id}: segments are [confidence, start, end] of finite numbers, start before end, by "
                "falling confidence"
            )
        self.rows.append(row)

    def distinct(self) -> list[ClipResult]:
        """Return the rows sorted by `image_id`, each clip once; of repeats that differ by rounding, the lowest score.

        Raises:
            EvaluationError: repeats differ by more: two clips or two models share an id.
        """
        kept: list[ClipResult] = []
        for row in sorted(self.rows, key=lambda row: (row.image_id, row.score)):
            if not kept or kept[-1].image_id != row.image_id:
                kept.append(row)
            elif kept[-1].is_fake != row.is_fake or abs(kept[-1].score - row.score) > SCORE_TOLERANCE:
                raise EvaluationError(
                    f"{row.image_id} was evaluated twice with unlike results: scores {kept[-1].score}, {row.score}"
                )
        return kept

    def check_complete(self, expected_ids: Iterable[str]) -> None:
        """Raise EvaluationError unless the clips of the table are exactly the expected ones."""
        check_ids({row.image_id for row in self.rows}, set(expected_ids), "clips")

    def metrics(self, options: ClipMetricOptions) -> dict[str, float]:
        """Compute all metrics, as fractions and counts.

        Returns:
            "AP@<overlap>" and "AR@<number>" over all clips with known segments; the same with "visual/" before it
            without the clips that are forged in sound only, and with "audio/" without those forged in picture only;
            "AUC" of the clips' scores; "DDL-AV", the challenge's score; "num_clips", "num_fake", "num_real". What is
            not defined (no clip with segments; one class only) is left out, but for "AUC" and "DDL-AV", which are NaN.

        Raises:
            EvaluationError: the label of a clip is unknown.
        """
        rows = self.distinct()
        if without := [row.image_id for row in rows if row.is_fake is None]:
            raise EvaluationError(f"{len(without)} of {len(rows)} clips have no label, the first is {without[0]}")
        known = [row for row in rows if row.segments is not None]
        result: dict[str, float] = {}
        for prefix, left_out in (("", ""), ("visual/", "audio"), ("audio/", "video")):
            subset = [_clip(row) for row in known if not left_out or row.forged_in != left_out]
            result.update((prefix + key, value) for key, value in _localization(subset, options).items())
        labels = np.array([row.is_fake for row in rows], dtype=np.int64)
        result["AUC"] = roc_auc(labels, np.array([row.score for row in rows], dtype=np.float64))
        fakes = [_clip(row) for row in known if row.is_fake]
        result["DDL-AV"] = ddl_av_metrics(result["AUC"], fakes, curve=options.curve) if fakes else math.nan
        result["num_clips"] = len(rows)
        result["num_fake"] = int(labels.sum())
        result["num_real"] = len(rows) - int(labels.sum())
        return result


def _clip(row: ClipResult) -> Clip:
    return row.found, np.zeros((0, 2), np.float32) if row.segments is None else row.segments


def _localization(clips: list[Clip], options: ClipMetricOptions) -> dict[str, float]:
    found = {f"AP@{t:g}": segment_average_precision(clips, t, curve=options.curve) for t in options.overlaps}
    found |= {f"AR@{n}": segment_average_recall(clips, n) for n in options.numbers}
    return {key: value for key, value in found.items() if not math.isnan(value)}
