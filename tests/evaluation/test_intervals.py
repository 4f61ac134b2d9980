import numpy as np
import pytest

from ddl_d2.evaluation.functional.intervals import auc_interval, mean_interval, share_interval


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
