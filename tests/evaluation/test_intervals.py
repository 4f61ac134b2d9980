import numpy as np
import pytest
from scipy.stats import norm

from ddl_d2.evaluation.functional.intervals import auc_difference, auc_interval, mean_interval, share_interval


def test_the_auc_is_the_exact_one_and_inside_its_interval(rng):
    labels = rng.integers(0, 2, 300)
    auc, low, high = auc_interval(labels, labels + rng.normal(0, 1.5, 300))
    assert 0.5 < low < auc < high < 1


def test_delongs_interval_holds_the_truth_about_as_often_as_it_says(rng):
    """Two normals one deviation apart: the AUC is Φ(1/√2) = .7602."""
    held = 0
    labels = np.repeat([0, 1], 60)
    for _ in range(400):
        _, low, high = auc_interval(labels, rng.normal(0, 1, 120) + labels)
        held += low <= 0.7602 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_constant_score_is_worth_a_half():
    assert auc_interval([0, 0, 1, 1], [0.3] * 4) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [(0, 10, (0.0, 0.0, 0.2775)), (5, 10, (0.5, 0.2366, 0.7634)), (10, 10, (1.0, 0.7225, 1.0))],
)
def test_wilsons_interval(count, total, expected):
    assert share_interval(count, total) == pytest.approx(expected, abs=1e-4)


def test_a_mean_leaves_nan_out():
    mean, low, high = mean_interval([1.0, 3.0, float("nan")])
    assert mean == 2.0
    assert high - mean == pytest.approx(mean - low) == pytest.approx(1.96 * 1.0, abs=1e-3)


def _slow_delong(labels, scores, others) -> tuple[float, float]:
    """The difference and its standard error by the definition: every pair compared, covariances summed."""
    labels, both = np.asarray(labels, bool), (np.asarray(scores), np.asarray(others))
    wins = [np.array([[(x > y) + 0.5 * (x == y) for y in s[~labels]] for x in s[labels]]) for s in both]
    of_fakes = np.cov([won.mean(axis=1) for won in wins])
    of_reals = np.cov([won.mean(axis=0) for won in wins])
    covariance = of_fakes / wins[0].shape[0] + of_reals / wins[0].shape[1]
    contrast = np.array([1, -1])
    return float(wins[0].mean() - wins[1].mean()), float(np.sqrt(contrast @ covariance @ contrast))


@pytest.mark.parametrize(("fakes", "reals"), [(5, 4), (3, 40), (25, 31)])
def test_paired_delong_is_that_of_the_definition(rng, fakes, reals):
    labels = rng.permutation(np.repeat([1, 0], [fakes, reals]))
    scores = np.round(labels + rng.normal(0, 1, len(labels)), 1)  # rounded: with ties
    others = np.round(scores + rng.normal(0, 1, len(labels)), 1)
    difference, error = _slow_delong(labels, scores, others)
    found, low, high, p = auc_difference(labels, scores, others)
    assert found == pytest.approx(difference, abs=1e-12)
    assert (low, high) == pytest.approx(
        (max(-1, difference - 1.959964 * error), min(1, difference + 1.959964 * error)), abs=1e-6
    )
    assert p == pytest.approx(2 * norm.sf(abs(difference) / error), abs=1e-12)


def test_a_system_does_not_differ_from_itself():
    labels, scores = [0, 1, 0, 1], [0.1, 0.4, 0.5, 0.9]
    assert auc_difference(labels, scores, scores) == (0.0, 0.0, 0.0, 1.0)


def test_one_image_of_a_class_has_no_variance():
    difference, *rest = auc_difference([0, 0, 1], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert difference == 1.0
    assert np.isnan(rest).all()
