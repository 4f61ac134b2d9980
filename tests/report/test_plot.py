"""Plots and curves: the points are those of the scores, and thinning leaves every line as it looks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_curve

from ddl_d2.evaluation.compared import Figure
from ddl_d2.report.curves import Scored, precision_points, roc_points, score_plots
from ddl_d2.report.plot import Line, plot, thinned

# Two fakes (0.9, 0.4) and two reals (0.6, 0.4): thresholds 0.9, 0.6 and 0.4.
LABELS, SCORES = np.array([1, 0, 1, 0]), np.array([0.9, 0.6, 0.4, 0.4])


def test_roc_by_hand():
    x, y = roc_points(LABELS, SCORES)
    assert x.tolist() == [0, 0, 0.5, 1]
    assert y.tolist() == [0, 0.5, 0.5, 1]


def test_precision_by_hand():
    """Above 0.9 one of one, above 0.6 one of two, above 0.4 two of four."""
    recall, precision = precision_points(LABELS, SCORES)
    assert recall.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 1]
    assert precision.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5]


def test_curves_are_scikit_learns(rng):
    labels = rng.integers(0, 2, 400)
    scores = np.round(rng.random(400) * 0.6 + labels * 0.2, 2)
    false_alarms, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    x, y = roc_points(labels, scores)
    np.testing.assert_allclose([x, y], [false_alarms, found], atol=1e-12)
    recall, precision = precision_points(labels, scores)
    area = float((np.diff(recall) * precision[1:]).sum())
    assert area == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_thinning_keeps_ends_and_extremes(rng):
    x, y = np.sort(rng.random(50_000)), rng.random(50_000)
    y[31_234] = 7.0
    near_x, near_y = thinned(x, y)
    assert len(near_x) <= 4 * 301
    assert (near_x[0], near_x[-1], near_y[0], near_y[-1]) == (x[0], x[-1], y[0], y[-1])
    assert near_y.max() == 7.0
    assert near_y.min() == y.min()
    for low in (0.0, 0.31, 0.9):
        inside, near = (x >= low) & (x < low + 0.01), (near_x >= low) & (near_x < low + 0.01)
        assert (near_y[near].min(), near_y[near].max()) == (y[inside].min(), y[inside].max())


def test_a_short_line_stays_whole():
    x, y = thinned([0.0, 1.0], [0.5, 0.25])
    assert (x.tolist(), y.tolist()) == ([0.0, 1.0], [0.5, 0.25])


def test_a_plot_says_in_words_what_it_shows():
    line = Line("a < b", np.array([0.0, 1.0]), np.array([0.0, 0.5]))
    drawn = plot("title", [line], x_label="x", y_label="y", description='AUC "0.9"', top=0.5)
    assert 'role="img" aria-label="AUC &quot;0.9&quot;"' in drawn
    assert "a &lt; b" in drawn
    # The axes lie between 46 and 408 pixels from the left, 258 and 10 from the top.
    assert 'points="46.0,258.0 408.0,10.0"' in drawn


def test_curves_name_the_figures_they_are_given():
    figures = {"auc": Figure(0.62504, 0.5, 0.75), "ap": Figure(0.75, 0.7, 0.8)}
    roc, precision, histogram = score_plots({"one": Scored(LABELS, SCORES, figures)}, threshold=0.5)
    assert "one: AUC 0.6250 [0.5000, 0.7500]" in roc
    assert "one: average precision 0.7500 [0.7000, 0.8000]" in precision
    assert "2 fakes" in histogram
    assert score_plots({"one": Scored(np.ones(4, np.int64), SCORES, figures)}, threshold=0.5) == []
