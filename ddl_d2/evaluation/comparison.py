"""Systems compared on the same images: every metric with its interval, and how far each system is from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.errors import listed
from ddl_d2.evaluation.functional.bootstrap import drawn_counts, percentile_interval, two_sided_p
from ddl_d2.evaluation.functional.intervals import auc_difference
from ddl_d2.evaluation.functional.resampled import Floats
from ddl_d2.evaluation.resampling import Ranking, ResampledMetrics, rankings_of, units_of
from ddl_d2.evaluation.results import ImageResult, ResultTable


class Figure(NamedTuple):
    """A metric and its 95 % interval.

    Attributes:
        value: as `ResultTable.metrics` gives it.
        low: the lower limit, NaN if there is none.
        high: the upper limit, likewise.
    """

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """How much larger a metric is than the first system's, on the same images.

    Attributes:
        value: the difference.
        low: lower limit of its 95 % interval, NaN if there is none.
        high: upper limit, likewise.
        p: how likely so large a difference is if there is none, two-sided.
        method: "DeLong" or "bootstrap".
    """

    value: float
    low: float
    high: float
    p: float
    method: str


class SystemComparison(NamedTuple):
    """What comparing systems gave.

    Attributes:
        figures: of each system, each metric.
        counts: the numbers of images and such of each system.
        differences: of each system but the first, each metric.
        unit: what was drawn: "images", "videos" or "groups".
        num_units: how many of them there are.
        resamples: how often they were drawn.
    """

    figures: dict[str, dict[str, Figure]]
    counts: dict[str, dict[str, int]]
    differences: dict[str, dict[str, Difference]]
    unit: str
    num_units: int
    resamples: int


def compare_tables(
    tables: Mapping[str, ResultTable],
    *,
    groups: Mapping[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
    empty_score: str = "skip",
    video_score: str = "mean",
) -> SystemComparison:
    """Compare systems by the result tables of the same images.

    The intervals are those of the bootstrap, which draws the same units for all systems. Differences of an AUC are
    tested by DeLong where what it ranks is drawn one by one, and by the bootstrap where images belong together.

    Args:
        tables: of each system, by its name; the first is the one that the others are compared with.
        groups: the group of each `image_id`, such as its person; groups are then drawn as a whole.
        resamples: of the bootstrap.
        seed: of its drawing.
        threshold: as in `ResultTable.metrics`.
        empty_score: likewise.
        video_score: likewise.

    Raises:
        EvaluationError: there is no image, the tables have unlike images, or as `ResultTable.metrics` and `units_of`.
    """
    metrics = {
        name: table.metrics(threshold=threshold, empty_score=empty_score, video_score=video_score)
        for name, table in tables.items()
    }
    rows = {name: table.distinct() for name, table in tables.items()}
    _check_alike(rows)
    units = units_of(next(iter(rows.values())), groups)
    rankings = {name: rankings_of(found, units, video_score) for name, found in rows.items()}
    systems = {
        name: ResampledMetrics(found, units, rankings[name], threshold=threshold, empty_score=empty_score)
        for name, found in rows.items()
    }
    drawn = _drawn(systems, units.total, resamples=resamples, seed=seed, width=len(units.of_image))
    first, *others = tables
    return SystemComparison(
        figures={name: _figures(metrics[name], drawn[name]) for name in tables},
        counts={name: {k: int(v) for k, v in metrics[name].items() if k.startswith("num_")} for name in tables},
        differences={
            name: _differences(
                (metrics[first], drawn[first], rankings[first]), (metrics[name], drawn[name], rankings[name])
            )
            for name in others
        },
        unit=units.kind,
        num_units=units.total,
        resamples=resamples,
    )


def _check_alike(rows: Mapping[str, Sequence[ImageResult]]) -> None:
    """Raise EvaluationError unless all systems have the same images with the same labels."""
    first, *others = rows
    expected = {row.image_id: row.is_fake for row in rows[first]}
    if not expected:
        raise EvaluationError("there is nothing to compare: no images")
    for name in others:
        present = {row.image_id: row.is_fake for row in rows[name]}
        if unlike := sorted(key for key in expected.keys() | present.keys() if expected.get(key) != present.get(key)):
            raise EvaluationError(
                f"{first} and {name} have not the same images and labels: {len(unlike)} differ: {listed(unlike)}"
            )


def _drawn(
    systems: Mapping[str, ResampledMetrics], num_units: int, *, resamples: int, seed: int, width: int
) -> dict[str, dict[str, Floats]]:
    """Compute of each system, each metric the values (R,) over the resamples, which are the same for all."""
    parts: dict[str, list[dict[str, Floats]]] = {name: [] for name in systems}
    for counts in drawn_counts(num_units, resamples=resamples, seed=seed, width=width):
        for name, system in systems.items():
            parts[name].append(system.all(counts))
    return {
        name: {key: np.concatenate([part[key] for part in found]) for key in found[0]} for name, found in parts.items()
    }


def _figures(metrics: Mapping[str, float], drawn: Mapping[str, Floats]) -> dict[str, Figure]:
    """Put the metrics that are no counts beside their intervals."""
    names = [key for key in metrics if not key.startswith("num_")]
    return {key: Figure(metrics[key], *percentile_interval(drawn.get(key, ()))) for key in names}


def _differences(
    first: tuple[Mapping[str, float], Mapping[str, Floats], Sequence[Ranking]],
    second: tuple[Mapping[str, float], Mapping[str, Floats], Sequence[Ranking]],
) -> dict[str, Difference]:
    """Subtract the first system's metrics from the second's; each system is its metrics, their resamples, rankings."""
    (old, old_drawn, old_rankings), (new, new_drawn, new_rankings) = first, second
    found: dict[str, Difference] = {}
    for key in (key for key in new if not key.startswith("num_") and key in old):
        values = new_drawn[key] - old_drawn[key] if key in new_drawn and key in old_drawn else np.empty(0)
        found[key] = Difference(new[key] - old[key], *percentile_interval(values), two_sided_p(values), "bootstrap")
    old_scores = {(ranking.prefix, ranking.suffix): ranking.scores for ranking in old_rankings}
    for one in new_rankings:
        scores = old_scores.get((one.prefix, one.suffix))
        if scores is None or not one.independent:
            continue
        for key, ranked in one.aucs().items():
            tested = auc_difference(one.labels[ranked], one.scores[ranked], scores[ranked])
            found[key] = Difference(*tested, "DeLong")
    return found
