"""How far stated probabilities are from what happens.

Shapes: N images, K bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ReliabilityBins(NamedTuple):
    """Images binned by their stated probability, in K bins of equal width over [0, 1]; empty bins are left out.

    Attributes:
        stated: (K,) mean stated probability.
        fakes: (K,) number of fakes.
        total: (K,) number of images.
    """

    stated: NDArray[np.float64]
    fakes: NDArray[np.int64]
    total: NDArray[np.int64]


def reliability_bins(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> ReliabilityBins:
    """Bin images by their stated probability.

    Args:
        labels: N of 0 (real) or 1 (fake).
        probabilities: N in [0, 1], P(fake).
        bins: how many; a probability on a border belongs to the upper bin, 1 to the last.
    """
    truth, stated = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    index = np.minimum((stated * bins).astype(np.int64), bins - 1)
    total = np.bincount(index, minlength=bins)
    there = total > 0
    sums = np.bincount(index, weights=stated, minlength=bins)[there]
    fakes = np.bincount(index, weights=truth, minlength=bins)[there].astype(np.int64)
    return ReliabilityBins(sums / total[there], fakes, total[there])


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> float:
    """Compute the expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    Args:
        labels: N of 0 (real) or 1 (fake).
        probabilities: N in [0, 1], P(fake).
        bins: of equal width.

    Returns:
        The mean over images of |share of fakes - mean stated probability| of the image's bin, 0..1; NaN of none.
    """
    found = reliability_bins(labels, probabilities, bins=bins)
    if not found.total.sum():
        return float("nan")
    return float(np.abs(found.fakes - found.stated * found.total).sum() / found.total.sum())


def chance_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Compute the mean expected calibration error that so many images would have if their probabilities were right.

    It is above 0, as few images in a bin have not exactly their share of fakes; an error is to be read beside it.

    Args:
        labels: N of 0 (real) or 1 (fake); only how many there are counts.
        probabilities: N in [0, 1], P(fake).
        bins: of equal width.
        draws: how often labels are drawn.
        seed: of the drawing.

    Returns:
        0..1; NaN of no images.
    """
    found = reliability_bins(labels, probabilities, bins=bins)
    if not found.total.sum():
        return float("nan")
    drawn = np.random.default_rng(seed).binomial(found.total, found.stated.clip(0, 1), (draws, len(found.total)))
    return float(np.abs(drawn - found.stated * found.total).sum(1).mean() / found.total.sum())
