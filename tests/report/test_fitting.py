"""Fitting: the same likelihood ratios and limits as lir, and verdicts whose rates hold."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from ddl_d2.errors import CalibrationError
from ddl_d2.predictions.likelihood_ratio import LikelihoodRatio, log10_odds
from ddl_d2.report.fitting import (
    conformal_limits,
    elub_limits,
    false_alarm_threshold,
    fit_ratio,
    fit_temperature,
)

lir = pytest.importorskip("lir", reason="the extra `calibration` is not installed")


def random_scores(rng, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a random system, sometimes a bad one, sometimes with ties."""
    labels = rng.integers(0, 2, total)
    labels[:2] = 0, 1
    logits = rng.normal(0, rng.uniform(0.2, 4), total) + labels * rng.uniform(-1, 3)
    scores = 1 / (1 + np.exp(-logits))
    return labels, np.round(scores, 2) if rng.random() < 0.3 else scores


def _of_lir(labels, scores, method, places):
    """What lir itself gives at `places`: its calibrator, within its limits."""
    from lir.algorithms.bayeserror import elub
    from lir.algorithms.isotonic_regression import IsotonicCalibrator
    from lir.algorithms.logistic_regression import LogitCalibrator

    if method == "pav":
        fitted, change = IsotonicCalibrator().fit(scores, labels), lambda values: values
    else:
        fitted, change = LogitCalibrator().fit(log10_odds(scores), labels), log10_odds
    limits = elub(fitted.transform(change(scores)).copy(), labels)
    return np.clip(fitted.transform(change(places)), *limits), limits


def test_ratios_after_a_round_trip_through_json_equal_lirs_on_200_random_sets(rng):
    for number in range(200):
        labels, scores = random_scores(rng, int(rng.integers(2, 300)))
        method = ("pav", "logistic")[number % 2]
        made = LikelihoodRatio.from_json(fit_ratio(labels, scores, method=method).to_json())
        places = np.concatenate([scores, rng.random(30)])
        expected, limits = _of_lir(labels, scores, method, places)
        np.testing.assert_allclose(made.limits, limits, atol=1e-9)
        np.testing.assert_allclose(made.log10(places), expected, atol=1e-9)


def test_limits_of_infinite_ratios_are_finite():
    # Ten and ten told apart without an error: one more misleading image each leaves a ratio of about ten.
    labels = np.repeat([0, 1], 10)
    low, high = elub_limits(labels, np.where(labels == 1, np.inf, -np.inf))
    assert 0.9 < high < 1.1
    assert -1.1 < low < -0.9


def test_a_class_alone_is_refused():
    with pytest.raises(CalibrationError, match="real and fake"):
        fit_ratio(np.ones(30, np.int64), np.linspace(0, 1, 30))


def test_conformal_limits_by_hand():
    # Nineteen reals: a score above the highest is as odd as 1 of 20, which is 5 %; above the second highest 10 %.
    labels = np.array([0] * 19 + [1] * 19)
    scores = np.concatenate([np.arange(19), np.arange(19) + 100]) / 200
    assert conformal_limits(labels, scores, false_alarm_rate=0.05, miss_rate=0.1) == (18 / 200, 101 / 200)
    assert conformal_limits(labels, scores, false_alarm_rate=0.04, miss_rate=0.04) == (None, None)


def test_rates_of_the_verdict_are_within_binomial_limits_on_200_simulated_sets(rng):
    rates = {"false_alarm_rate": 0.05, "miss_rate": 0.1}
    wrong, total = np.zeros(2, int), 0
    for _ in range(200):
        labels = np.repeat([0, 1], 99)
        scores = 1 / (1 + np.exp(-rng.normal(labels, 1)))
        above, below = conformal_limits(labels, scores, **rates)
        # New images; few of each, as those of one set share its limits.
        new = 1 / (1 + np.exp(-rng.normal(np.repeat([0, 1], 10), 1)))
        wrong += (new[:10] > above).sum(), (new[10:] < below).sum()
        total += 10
    for count, rate in zip(wrong, rates.values(), strict=True):
        # With 99 images the expected share is the rate itself: 5 of 100 ranks, 10 of 100 ranks. The spread of the
        # limits between sets adds to that of the images: on ten images of one set by a factor of sqrt(1 + 9 / 101).
        low, high = binom.interval(0.999, total, rate)
        spread = math.sqrt(1 + 9 / 101)
        assert rate * total - spread * (rate * total - low) <= count <= rate * total + spread * (high - rate * total)


def test_thresholds_keep_their_rate_of_false_alarms(rng):
    for rate in (0.01, 0.03, 0.05):
        labels, scores = np.zeros(200, np.int64), np.round(rng.random(200), 2)
        limit = false_alarm_threshold(labels, scores, rate)
        assert (scores > limit).mean() <= rate
        lower = scores[scores < limit].max()
        assert (scores > lower).mean() > rate, "a lower threshold would do"


def test_temperature_is_found_again(rng):
    logits = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    assert fit_temperature(labels, 1 / (1 + np.exp(-3 * logits))) == pytest.approx(3, rel=0.05)
