"""Breakdowns: each group's figures and intervals are those of a plain loop over the group's resampled images."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ddl_d2.evaluation import ResultTable, compare_tables
from ddl_d2.evaluation.facts import sortings_of
from ddl_d2.evaluation.functional import UndefinedMetricWarning
from ddl_d2.evaluation.functional.bootstrap import drawn_units, percentile_interval
from tests.evaluation.test_comparison import _resampled, _table

RESAMPLES = 60


def _slow(rows, threshold: float) -> dict[str, float]:
    """AUC, F1 and IoU by `ResultTable.metrics`; the shares above the threshold counted one by one."""
    found = dict.fromkeys(("auc", "f1", "iou", "found", "false_alarms"), math.nan)
    if rows:
        metrics = ResultTable(rows).metrics(threshold=threshold)
        found |= {key: metrics[key] for key in ("auc", "f1", "iou")}
    for key, label in (("found", 1), ("false_alarms", 0)):
        called = [row.score > threshold and row.has_face for row in rows if row.is_fake == label]
        if called:
            found[key] = sum(called) / len(called)
    return found


@pytest.mark.parametrize("grouped", [False, True])
def test_groups_are_those_of_a_plain_loop(rng, grouped):
    table = _table(rng, np.r_[1, 1, 0, 1, rng.integers(0, 2, 46)])
    table = ResultTable(row._replace(has_face=index % 7 != 0) for index, row in enumerate(table))
    facts = {"source": {f"{number:03d}": ("web", "film", "")[number % 3] for number in range(50)}}
    groups = {row.image_id: f"person {int(row.image_id) % 9}" for row in table} if grouped else None
    found = compare_tables({"a": table}, groups=groups, facts=facts, resamples=RESAMPLES, seed=3, threshold=0.4)
    assert [one.name for one in found.breakdowns] == ["forgery type", "forged area", "source"]

    rows = table.distinct()
    names = groups or {row.image_id: row.image_id for row in rows}
    order = list(dict.fromkeys(names[row.image_id] for row in rows))
    unit_of = {image_id: order.index(name) for image_id, name in names.items()}
    draws = list(drawn_units(found.num_units, resamples=RESAMPLES, seed=3))
    sortings = {one.name: one for one in sortings_of(rows, facts)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for breakdown in found.breakdowns:
            means = np.zeros((RESAMPLES, 0))
            for group in breakdown.groups:
                members = {rows[index].image_id for index in sortings[breakdown.name].groups[group.name]}
                kept = [row for row in rows if row.image_id in members or not (breakdown.of_reals or row.is_fake)]
                _check(group, _slow(kept, 0.4), None, of_reals=breakdown.of_reals)
                values = [_slow(list(_resampled(kept, unit_of, units)), 0.4) for units in draws]
                _check(group, None, values, of_reals=breakdown.of_reals)
                means = np.column_stack([means, [one["auc"] for one in values]])
            assert bool(breakdown.mean_auc) == breakdown.of_reals
            if breakdown.of_reals:
                limits = percentile_interval(np.nanmean(means, axis=1))
                assert (breakdown.mean_auc["a"].low, breakdown.mean_auc["a"].high) == pytest.approx(limits, abs=1e-12)


def _check(group, once, values, *, of_reals: bool) -> None:
    for key, figure in group.figures["a"].items():
        if key == "false_alarms" and not of_reals:
            assert math.isnan(figure.value)
        elif once is not None:
            assert figure.value == pytest.approx(once[key], abs=1e-12, nan_ok=True), (group.name, key)
        else:
            limits = percentile_interval([one[key] for one in values])
            assert (figure.low, figure.high) == pytest.approx(limits, abs=1e-12, nan_ok=True), (group.name, key)


def test_threads_change_nothing(rng):
    tables = {name: _table(rng, [1, 0, 1, 0, 1, 1, 0, 0] * 4) for name in "ab"}
    facts = {"source": {f"{number:03d}": "xy"[number % 2] for number in range(32)}}
    one, two = (compare_tables(tables, facts=facts, resamples=100, workers=n) for n in (1, 2))
    assert repr(one) == repr(two)


def test_pooling_sets_of_unlike_scales_by_hand():
    """Set x scores its reals .1 and fakes .2, set y .8 and .9: within each AUC 1; together the reals of y are above
    the fakes of x, one pair in four, so 3/4."""
    from ddl_d2.evaluation.results import ImageResult

    scores = {"x0": 0.1, "x1": 0.2, "y0": 0.8, "y1": 0.9}
    rows = [ImageResult(name, int(name[1]), score, None, False, 8, 8) for name, score in scores.items()]
    facts = {"set": {name: name[0] for name in scores}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        found = compare_tables({"a": ResultTable(rows)}, facts=facts, resamples=100)
    (breakdown,) = found.breakdowns
    assert breakdown.mean_auc["a"].value == 1.0
    assert found.figures["a"]["auc"].value == 0.75
    assert {group.name: group.figures["a"]["false_alarms"].value for group in breakdown.groups} == {"x": 0, "y": 1}
