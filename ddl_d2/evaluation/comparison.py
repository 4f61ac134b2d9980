"""Systems compared on the same images: every metric with its interval, and how far each system is from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.breakdown import Part, ResampledBreakdown, breakdowns_of
from ddl_d2.evaluation.compared import Difference, Figure, SystemComparison
from ddl_d2.evaluation.errors import listed
from ddl_d2.evaluation.facts import Facts, sortings_of
from ddl_d2.evaluation.functional.bootstrap import drawn_counts, percentile_interval, two_sided_p
from ddl_d2.evaluation.functional.intervals import auc_difference
from ddl_d2.evaluation.functional.resampled import Floats
from ddl_d2.evaluation.pipeline import Pipeline
from ddl_d2.evaluation.resampling import Ranking, ResampledMetrics, rankings_of, units_of
from ddl_d2.evaluation.results import ImageResult, ResultTable

Key = TypeVar("Key", str, Part)


def compare_tables(
    tables: Mapping[str, ResultTable],
    *,
    groups: Mapping[str, str] | None = None,
    facts: Facts | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
    empty_score: str = "skip",
    video_score: str = "mean",
    workers: int = 1,
) -> SystemComparison:
    """Compare systems by the result tables of the same images.

    The intervals are those of the bootstrap, which draws the same units for all systems. Differences of an AUC are
    tested by DeLong where what it ranks is drawn one by one, and by the bootstrap where images belong together.

    Args:
        tables: of each system, by its name; the first is the one that the others are compared with.
        groups: the group of each `image_id`, such as its person; groups are then drawn as a whole.
        facts: what else is known of the images, see `facts.read_facts`: their figures are broken down by it.
        resamples: of the bootstrap.
        seed: of its drawing.
        threshold: as in `ResultTable.metrics`.
        empty_score: likewise.
        video_score: likewise.
        workers: threads that compute the resamples; what they find does not depend on their number.

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
    # Areas are known to a system with maps.
    sortings = sortings_of(max(rows.values(), key=lambda found: sum(row.counts is not None for row in found)), facts)
    parts = {
        name: ResampledBreakdown(found, units, sortings, threshold=threshold, empty_score=empty_score)
        for name, found in rows.items()
    }
    drawing = {"resamples": resamples, "seed": seed, "width": len(units.of_image)}
    drawn, drawn_parts = _drawn(systems, parts, units.total, workers=workers, **drawing)
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
        breakdowns=breakdowns_of(sortings, rows[first], parts, drawn_parts, units.total),
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
    systems: Mapping[str, ResampledMetrics],
    parts: Mapping[str, ResampledBreakdown],
    num_units: int,
    *,
    resamples: int,
    seed: int,
    width: int,
    workers: int,
) -> tuple[dict[str, dict[str, Floats]], dict[str, dict[Part, Floats]]]:
    """Compute of each system, each metric the values (R,) over the resamples, which are the same for all.

    Returns:
        those of the whole dataset, and those of its parts.
    """
    chunks: list[dict[str, tuple[dict[str, Floats], dict[Part, Floats]]]] = []

    def computed(counts: Floats) -> dict[str, tuple[dict[str, Floats], dict[Part, Floats]]]:
        return {name: (system.all(counts), parts[name].all(counts)) for name, system in systems.items()}

    pipeline = Pipeline(workers if workers > 1 else 0)
    for counts in drawn_counts(num_units, resamples=resamples, seed=seed, width=width):
        pipeline.add(partial(computed, counts), chunks.append, counts.nbytes)
    pipeline.finish()
    return (
        {name: _joined([chunk[name][0] for chunk in chunks]) for name in systems},
        {name: _joined([chunk[name][1] for chunk in chunks]) for name in systems},
    )


def _joined(chunks: Sequence[Mapping[Key, Floats]]) -> dict[Key, Floats]:
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


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
