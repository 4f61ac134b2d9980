"""Fitting a calibration to the scores of a labeled corpus.

The likelihood ratio is fitted by lir (Netherlands Forensic Institute, Apache-2.0). Its limits are computed here, to the
same numbers: lir's own take memory for each pair of an image and one of about a thousand thresholds.

Legend: N images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from ddl_d2.errors import CalibrationError, InstallError
from ddl_d2.predictions.likelihood_ratio import PAV, LikelihoodRatio, log10_odds

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_STEP = 0.01
"""How fine the limits are, in log10 of the ratio: lir's."""
_EXTREME = 9.0
"""What stands for an infinite log10 ratio when limits are computed: lir's."""


class ScoreLimits(NamedTuple):
    """The two limits of a three-way verdict; see `Calibration`."""

    forged_above: float | None
    none_below: float | None


def fit_ratio(labels: Labels, scores: Floats, *, method: str = PAV) -> LikelihoodRatio:
    """Fit the likelihood ratio of forged against real, with empirical upper and lower limits (ELUB).

    Args:
        labels: (N,) 0 real, 1 fake, both present.
        scores: (N,) in [0, 1].
        method: "pav" or "logistic" (of the score's log10 odds).

    Raises:
        CalibrationError: a class is missing.
        InstallError: lir is not installed.
    """
    if not 0 < labels.sum() < len(labels):
        raise CalibrationError("a calibration needs real and fake images: the corpus has only one of the two")
    try:
        from lir.algorithms.isotonic_regression import IsotonicCalibrator
        from lir.algorithms.logistic_regression import LogitCalibrator
    except ModuleNotFoundError as error:
        raise InstallError('calibrating needs lir, which is not installed: run `pip install "lir>=1.3,<2"`') from error
    if method == PAV:
        fitted = IsotonicCalibrator().fit(scores, labels)
        places = np.unique(scores)
        fitted.transform(places)
        unlimited = LikelihoodRatio(PAV, (0.0, 0.0), knots=_corners(places, fitted.p1))
    else:
        logistic = LogitCalibrator().fit(log10_odds(scores), labels)
        # A straight line: two values give it.
        zero, one = logistic.transform(np.array([0.0, 1.0]))
        unlimited = LikelihoodRatio(method, (0.0, 0.0), slope=float(one - zero), intercept=float(zero))
    return replace(unlimited, limits=elub_limits(labels, unlimited.unlimited(scores)))


def elub_limits(labels: Labels, log10_lrs: Floats) -> tuple[float, float]:
    """Compute the empirical lower and upper bound of log10 ratios (Vergeer et al., Science & Justice 56, 2016).

    Beyond them deciding by the ratio, after one more misleading image of each class, costs more than not looking at it.

    Args:
        labels: (N,) 0 real, 1 fake, both present.
        log10_lrs: (N,), may be infinite.

    Returns:
        (lower, upper), at most 0 and at least 0.
    """
    ratios = np.clip(log10_lrs, -_EXTREME, _EXTREME)
    fakes, reals = int(labels.sum()), int((1 - labels).sum())
    lowest, highest = max(ratios.min(), -np.log10(fakes + 1)), min(ratios.max(), np.log10(reals + 1))
    first, last = min(0, int(lowest // _STEP)), max(0, int(highest // _STEP) + 1)
    places = np.linspace(first * _STEP, last * _STEP, last - first + 1)
    costs = 10**places
    neutral = np.where(costs < 1, costs, 1.0)
    linear = 10**ratios
    missed = 1 - _count_above(linear[labels == 1], costs) / (fakes + 1)
    alarms = (_count_above(linear[labels == 0], costs) + 1) / (reals + 1)
    worse = neutral / (missed + costs * alarms) < 1
    lower = np.max(places[(places <= 0) & worse] + _STEP, initial=places[0])
    upper = np.min(places[(places >= 0) & worse] - _STEP, initial=places[-1])
    return min(float(lower), 0.0), max(float(upper), 0.0)


def conformal_limits(labels: Labels, scores: Floats, *, false_alarm_rate: float, miss_rate: float) -> ScoreLimits:
    """Compute the limits of a split-conformal verdict that knows the classes apart.

    Of new real images like those of the corpus a share of at most `false_alarm_rate` is expected above the first
    limit; of new fakes at most `miss_rate` below the second (Vovk, "Conditional validity of inductive conformal
    predictors", 2012).

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,).
        false_alarm_rate: 0..1.
        miss_rate: 0..1.

    Returns:
        The limits; None where the corpus has fewer than 1 / rate - 1 images of the class, so that it supports none.
    """
    reals, fakes = np.sort(scores[labels == 0])[::-1], np.sort(scores[labels == 1])
    # The p-value of a score is (1 + images of the class at least as odd) / (1 + images of the class). The small term
    # keeps products such as 0.05 * 60 from falling below the whole number that they are.
    above = int(false_alarm_rate * (len(reals) + 1) + 1e-9)
    below = int(miss_rate * (len(fakes) + 1) + 1e-9)
    return ScoreLimits(
        float(reals[min(above, len(reals)) - 1]) if above else None,
        float(fakes[min(below, len(fakes)) - 1]) if below else None,
    )


def false_alarm_threshold(labels: Labels, scores: Floats, rate: float) -> float:
    """Find the lowest score above which there is at most a share `rate` of the (N,) images that are real."""
    reals = np.sort(scores[labels == 0])[::-1]
    return float(reals[min(int(rate * len(reals) + 1e-9), len(reals) - 1)])


def fit_temperature(labels: Labels, scores: Floats) -> float:
    """Find the temperature of the logits that makes (N,) labels most likely, 1/100 to 100 (Guo et al., ICML 2017)."""
    logits = log10_odds(scores) * np.log(10)
    signs = 2 * labels - 1

    def cost(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signs * logits * np.exp(-log_temperature)).mean())

    reach = np.log(100)
    return float(np.exp(minimize_scalar(cost, bounds=(-reach, reach), method="bounded").x))


def _corners(places: Floats, shares: Floats) -> tuple[tuple[float, float], ...]:
    """The knots of a function that is linear between `places`, without those inside a level stretch."""
    same = shares[1:] == shares[:-1]
    inner = np.concatenate([[False], same[:-1] & same[1:], [False]]) if len(places) > 1 else np.array([False])
    return tuple(zip(places[~inner].tolist(), shares[~inner].tolist(), strict=True))


def _count_above(values: Floats, limits: Floats) -> NDArray[np.int64]:
    return len(values) - np.searchsorted(np.sort(values), limits, side="right")
