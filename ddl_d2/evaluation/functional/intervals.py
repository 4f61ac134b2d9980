"""How sure a measured figure is: 95 % intervals.

Shapes: N images.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ddl_d2.evaluation.functional.detection import roc_auc

_NORMAL_95 = 1.959963984540054


def auc_interval(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float, float]:
    """The area under the ROC curve and its 95 % interval (DeLong, DeLong and Clarke-Pearson, 1988).

    Args:
        labels: N of 0 (real) or 1 (fake), both present.
        scores: N finite floats, higher for fakes.

    Returns:
        (AUC, lower limit, upper limit), within [0, 1].
    """
    auc = roc_auc(labels, scores)
    of_fakes, of_reals = _shares_ordered_right(labels, scores)
    error = math.sqrt(_variance_of_mean(of_fakes) + _variance_of_mean(of_reals))
    return auc, max(0.0, auc - _NORMAL_95 * error), min(1.0, auc + _NORMAL_95 * error)


def auc_difference(labels: ArrayLike, scores: ArrayLike, others: ArrayLike) -> tuple[float, float, float, float]:
    """How much larger one AUC is than another on the same images, by DeLong's test of correlated AUCs (1988).

    The images are taken to be independent of each other.

    Args:
        labels: N of 0 (real) or 1 (fake).
        scores: N finite floats, higher for fakes.
        others: likewise, of the system that is compared with.

    Returns:
        (AUC of `scores` - AUC of `others`, lower limit, upper limit of 95 %, two-sided p), limits within [-1, 1]; all
        but the difference are NaN if a class has fewer than two images, all if one has none.
    """
    difference = roc_auc(labels, scores) - roc_auc(labels, others)
    num_fake = int(np.count_nonzero(labels))
    if min(num_fake, len(np.asarray(labels)) - num_fake) < 2:
        return difference, math.nan, math.nan, math.nan
    # The variance of a difference of means over the same images is that of the mean of their differences.
    pairs = zip(_shares_ordered_right(labels, scores), _shares_ordered_right(labels, others), strict=True)
    error = math.sqrt(sum(_variance_of_mean(ours - theirs) for ours, theirs in pairs))
    half = _NORMAL_95 * error
    p = math.erfc(abs(difference) / (error * math.sqrt(2))) if error else float(difference == 0)
    return difference, max(-1.0, difference - half), min(1.0, difference + half), p


def _shares_ordered_right(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Of each fake, and each real: the share of the other class that is ordered right against it, ties for a half."""
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    fake, real = values[truth], values[~truth]
    return _shares_below(fake, real), 1 - _shares_below(real, fake)


def _shares_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    return (below + np.searchsorted(ordered, values, side="right")) / (2 * len(others))


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def share_interval(count: int, total: int) -> tuple[float, float, float]:
    """A share and its 95 % interval (Wilson, 1927): right also for few images and for none or all of them.

    Args:
        count: how many, 0..total.
        total: of how many, at least 1.

    Returns:
        (share, lower limit, upper limit), within [0, 1].
    """
    share, square = count / total, _NORMAL_95**2
    center = (share + square / (2 * total)) / (1 + square / total)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / total + square / (4 * total**2)) / (1 + square / total)
    return share, max(0.0, center - half), min(1.0, center + half)


def mean_interval(values: ArrayLike) -> tuple[float, float, float]:
    """A mean and its 95 % interval by the normal distribution; NaN values are left out, one value has no interval."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return math.nan, math.nan, math.nan
    half = _NORMAL_95 * math.sqrt(_variance_of_mean(known))
    mean = float(known.mean())
    return mean, mean - half, mean + half
