"""Systems compared: the same numbers as a plain loop over resampled tables, and what is refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation import ResultTable, compare_tables
from ddl_d2.evaluation.functional import UndefinedMetricWarning
from ddl_d2.evaluation.functional.bootstrap import drawn_counts, drawn_units, percentile_interval, two_sided_p
from ddl_d2.evaluation.functional.intervals import auc_difference
from ddl_d2.evaluation.results import ImageResult

RESAMPLES = 100


def _table(rng, labels, *, videos=False, maps=True, quality=1.0) -> ResultTable:
    """A system's results of images of 10 x 10 pixels, with ties, an empty mask, and a fake without a mask."""
    table = ResultTable()
    for number, label in enumerate(labels):
        score = float(np.round(np.clip(0.5 + quality * 0.2 * (label - 0.5) + rng.normal(0, 0.2), 0, 1), 1))
        counts = rng.multinomial(100, [0.3, 0.1, 0.1, 0.5] if label else [0, 0.1, 0, 0.9])
        counts = (0, 0, 0, 100) if number == 1 else tuple(counts.tolist())
        has_mask = number != 3
        table.add(
            ImageResult(
                image_id=f"{number:03d}",
                is_fake=int(label),
                score=score,
                counts=counts if maps and has_mask else None,
                has_mask=has_mask,
                height=10,
                width=10,
                video_id=f"v{label}{number // 4}" if videos else None,
                forgery_type=("swap", "a{}b")[number % 2] if label else None,
            )
        )
    return table


def _resampled(table: ResultTable, unit_of: dict[str, int], units: np.ndarray) -> ResultTable:
    """The images of the drawn units, copied under new names, one copy for each time that their unit was drawn."""
    return ResultTable(
        row._replace(image_id=f"{row.image_id} {draw}", video_id=row.video_id and f"{row.video_id} {draw}")
        for draw, unit in enumerate(units)
        for row in table
        if unit_of[row.image_id] == unit
    )


@pytest.mark.parametrize("empty_score", ["skip", "1"])
@pytest.mark.parametrize("kind", ["images", "videos", "groups"])
def test_intervals_and_differences_are_those_of_a_plain_loop(rng, kind, empty_score):
    labels = np.r_[1, 1, 0, 1, rng.integers(0, 2, 36)]
    tables = {name: _table(rng, labels, videos=kind == "videos", quality=q) for name, q in (("a", 1.0), ("b", 2.0))}
    names = {row.image_id: row.image_id for row in tables["a"]}
    groups = None
    if kind == "videos":
        names = {row.image_id: row.video_id for row in tables["a"]}
    if kind == "groups":
        groups = names = {image_id: f"person {int(image_id) % 9}" for image_id in names}
    order = list(dict.fromkeys(names[image_id] for image_id in sorted(names)))
    unit_of = {image_id: order.index(name) for image_id, name in names.items()}

    options = {"threshold": 0.4, "empty_score": empty_score}
    found = compare_tables(tables, groups=groups, resamples=RESAMPLES, seed=3, **options)
    assert (found.unit, found.num_units) == (kind, len(order))
    slow: dict[str, list[dict[str, float]]] = {"a": [], "b": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for units in drawn_units(len(order), resamples=RESAMPLES, seed=3):
            for name, table in tables.items():
                slow[name].append(_resampled(table, unit_of, units).metrics(**options))
    for name, table in tables.items():
        metrics = table.metrics(**options)
        assert {**{k: v.value for k, v in found.figures[name].items()}, **found.counts[name]} == metrics
        assert ("video_auc" in metrics) == (kind == "videos")
        for key, figure in found.figures[name].items():
            limits = percentile_interval([one.get(key, math.nan) for one in slow[name]])
            assert (figure.low, figure.high) == pytest.approx(limits, abs=1e-12), key
            assert figure.low <= figure.value <= figure.high or "auc" not in key
    for key, one in found.differences["b"].items():
        if one.method == "bootstrap":
            values = np.array(
                [b.get(key, math.nan) - a.get(key, math.nan) for a, b in zip(*slow.values(), strict=True)]
            )
            assert (one.low, one.high) == pytest.approx(percentile_interval(values), abs=1e-12), key
            assert one.p == two_sided_p(np.round(values, 12))
    of_images = found.differences["b"]["auc"]
    assert of_images.method == ("DeLong" if kind == "images" else "bootstrap")
    if kind == "images":
        scores = [[row.score for row in table] for table in tables.values()]
        assert of_images[:4] == auc_difference(labels, scores[1], scores[0])
    if kind == "videos":
        assert found.differences["b"]["video_auc"].method == "DeLong"


def test_chunks_change_nothing():
    (whole,) = drawn_counts(7, resamples=5, seed=1, width=7)
    apart = np.concatenate(list(drawn_counts(7, resamples=5, seed=1, width=1 << 20)))
    assert np.array_equal(whole, apart)
    assert whole.shape == (5, 7)
    assert (whole.sum(axis=1) == 7).all()


def test_percentiles_and_p_by_hand():
    """Of 0, 1, .. 40 the 2.5th percentile is the second value; 2 of 41 are at most 1."""
    values = np.r_[np.arange(41.0), math.nan]
    assert percentile_interval(values) == (1.0, 39.0)
    assert two_sided_p(values - 1) == 2 * 3 / 42
    assert two_sided_p(np.zeros(9)) == 1.0
    assert math.isnan(two_sided_p([math.nan]))


def test_the_bootstrap_holds_the_truth_about_as_often_as_it_says(rng):
    """Accuracy of a coin that is right 7 times in 10, by 80 images."""
    held = 0
    for _ in range(200):
        right = rng.random(80) < 0.7
        rows = (ImageResult(f"{n:02d}", n % 2, float(n % 2 == ok), None, True, 1, 1) for n, ok in enumerate(right))
        accuracy = compare_tables({"coin": ResultTable(rows)}, resamples=200).figures["coin"]["accuracy"]
        held += accuracy.low <= 0.7 <= accuracy.high
    assert 0.89 <= held / 200 <= 0.99


def test_a_system_beside_itself_does_not_differ(rng):
    table = _table(rng, [1, 1, 0, 1, 0, 0])
    found = compare_tables({"a": table, "again": table}, resamples=RESAMPLES)
    assert found.differences["again"]["auc"] == (0.0, 0.0, 0.0, 1.0, "DeLong")
    assert found.differences["again"]["f1"] == (0.0, 0.0, 0.0, 1.0, "bootstrap")


@pytest.mark.filterwarnings("ignore::ddl_d2.evaluation.functional.UndefinedMetricWarning")
def test_systems_without_maps_have_no_localization(rng):
    labels = rng.integers(0, 2, 20)
    found = compare_tables({"a": _table(rng, labels), "b": _table(rng, labels, maps=False)}, resamples=RESAMPLES)
    assert math.isnan(found.figures["b"]["f1"].value)
    assert math.isnan(found.figures["b"]["f1"].low)
    assert math.isnan(found.differences["b"]["f1"].p)
    assert found.differences["b"]["auc"].p > 0


def test_what_cannot_be_compared(rng):
    labels = [1, 0, 1, 0, 1, 0, 1, 0]
    table = _table(rng, labels)
    with pytest.raises(EvaluationError, match="a and b have not the same images and labels: 1 differ: 007"):
        compare_tables({"a": table, "b": _table(rng, labels[:7])})
    with pytest.raises(EvaluationError, match="1 differ: 007"):
        compare_tables({"a": table, "b": _table(rng, [*labels[:7], 1])})
    with pytest.raises(EvaluationError, match="7 of 8 images have no group: 001, 002"):
        compare_tables({"a": table}, groups={"000": "x", "other": "y"})
    with pytest.raises(EvaluationError, match="no images"):
        compare_tables({"a": ResultTable()})
    frames = _table(rng, [1, 1, 1, 1, 0, 0, 0, 0], videos=True)
    groups = {row.image_id: "x" for row in frames} | {"002": "y"}
    with pytest.raises(EvaluationError, match="video v10 is in the groups x and y"):
        compare_tables({"a": frames}, groups=groups)
