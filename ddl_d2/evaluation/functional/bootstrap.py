"""The bootstrap (Efron, 1979): how far figures vary when the images are drawn anew.

Legend: N images, U units that are drawn (images, or groups of images such as all of a person or of a video), R
resamples. A resample draws U units with replacement; a metric of it is the metric with every image counted as often as
its unit was drawn, so no data is copied (`ddl_d2.evaluation.functional.resampled`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

_VALUES_AT_ONCE = 1 << 20
"""Weights of one chunk: few enough for the processor's cache, enough that the loop over chunks costs nothing."""


def drawn_units(num_units: int, *, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw the units of each resample.

    Args:
        num_units: U, at least 1.
        resamples: R.
        seed: of the drawing; equal seeds draw the same.

    Yields:
        (U,) the indices of the units of one resample, R times.
    """
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(0, num_units, num_units)


def drawn_counts(num_units: int, *, resamples: int, seed: int, width: int) -> Iterator[NDArray[np.float64]]:
    """Count how often each unit was drawn, for the resamples of `drawn_units`, several at a time.

    Args:
        num_units: U, at least 1.
        resamples: R.
        seed: of the drawing.
        width: how many weights are made of a resample (the images), which limits how many resamples come at a time.

    Yields:
        (C, U) whole numbers as floats, every row summing to U; R rows in all, for any `width`.
    """
    at_once, chunk = max(1, _VALUES_AT_ONCE // max(1, width)), []
    for number, units in enumerate(drawn_units(num_units, resamples=resamples, seed=seed), 1):
        chunk.append(np.bincount(units, minlength=num_units).astype(np.float64))
        if len(chunk) == at_once or number == resamples:
            yield np.stack(chunk)
            chunk = []


def percentile_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of a figure: the 2.5th and the 97.5th percentile of its resamples.

    Args:
        values: (R,) of the resamples; those in which the figure has no value (NaN) are left out.

    Returns:
        (lower limit, upper limit), NaN if no resample has a value.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def two_sided_p(differences: ArrayLike) -> float:
    """How likely so large a difference is by chance: twice the smaller share of resamples on either side of zero.

    One is added to the count and the number of resamples, so that p is never 0 (Davison and Hinkley, 1997, 4.2).

    Args:
        differences: (R,) of the resamples, NaN left out.

    Returns:
        In (0, 1], NaN if no resample has a value.
    """
    known = np.asarray(differences, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        return math.nan
    fewer = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return min(1.0, 2 * (int(fewer) + 1) / (known.size + 1))
