"""The expected calibration error, by hand and beside what chance alone gives."""

import math

import numpy as np
import pytest

from ddl_d2.evaluation.functional.calibration import (
    chance_calibration_error,
    expected_calibration_error,
    reliability_bins,
)


def test_by_hand():
    # Two bins. Below .5: stated .1 and .3, mean .2, one of two is fake: |.5 - .2| = .3. Above: stated .5 (the border
    # belongs to the upper bin), .9 and 1, mean .8, all fake: |1 - .8| = .2. In all (2 x .3 + 3 x .2) / 5 = .24.
    labels, stated = [0, 1, 1, 1, 1], [0.1, 0.3, 0.5, 0.9, 1.0]
    assert expected_calibration_error(labels, stated, bins=2) == pytest.approx(0.24, abs=1e-12)
    bins = reliability_bins(labels, stated, bins=2)
    np.testing.assert_allclose(bins.stated, [0.2, 0.8])
    assert bins.fakes.tolist() == [1, 3]
    assert bins.total.tolist() == [2, 3]


def test_equals_a_slow_reference(rng):
    for _ in range(50):
        total = int(rng.integers(1, 200))
        stated, labels = rng.random(total), rng.integers(0, 2, total)
        slow = 0.0
        for number in range(10):
            inside = [i for i in range(total) if number <= stated[i] * 10 < number + 1]
            if inside:
                share = sum(labels[i] for i in inside) / len(inside)
                slow += len(inside) / total * abs(share - sum(stated[i] for i in inside) / len(inside))
        assert expected_calibration_error(labels, stated) == pytest.approx(slow, abs=1e-12)


def test_right_probabilities_have_the_error_of_chance_and_wrong_ones_more(rng):
    stated = rng.random(2000)
    right = np.mean([expected_calibration_error(rng.random(2000) < stated, stated) for _ in range(100)])
    chance = chance_calibration_error(np.zeros(2000), stated)
    assert chance == pytest.approx(right, rel=0.1)
    assert expected_calibration_error(rng.random(2000) < stated**3, stated) > 3 * chance


def test_of_no_images():
    assert math.isnan(expected_calibration_error([], []))
    assert math.isnan(chance_calibration_error([], []))
