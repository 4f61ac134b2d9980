"""How a calibration does on images that it was not fitted to: fitted and tested in turn on parts of the corpus.

Legend: N images, G groups of images that belong together (a person, a video).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.errors import CalibrationError
from ddl_d2.evaluation.functional.calibration import chance_calibration_error, expected_calibration_error
from ddl_d2.evaluation.functional.intervals import share_interval
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.report.fitting import Floats, Labels

Bools = NDArray[np.bool_]


class HeldOut(NamedTuple):
    """What calibrations said of images that they had not seen.

    Attributes:
        labels: (N,) 0 real, 1 fake.
        log10_lrs: (N,) likelihood ratios.
        tempered: (N,) P(fake) after temperature scaling.
        forged: (N,) whether the verdict is "forged".
        none: (N,) whether it is "no forgery found"; neither: "inconclusive".
        alarms: of each rate of false alarms, (N,) whether the score is above the threshold of that rate.
    """

    labels: Labels
    log10_lrs: Floats
    tempered: Floats
    forged: Bools
    none: Bools
    alarms: dict[str, Bools]


def folds_of(groups: NDArray[np.int64], folds: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Deal groups to folds in a random order, each to the fold that has the fewest images so far.

    Args:
        groups: (N,) number of each image's group, 0..G-1.
        folds: 2 or more.
        seed: of the order.

    Returns:
        (N,) the fold of each image.

    Raises:
        CalibrationError: there are fewer groups than folds.
    """
    sizes = np.bincount(groups)
    if len(sizes) < folds:
        raise CalibrationError(f"{len(sizes)} groups of images cannot be dealt to {folds} folds: give fewer --folds")
    order = np.random.default_rng(seed).permutation(len(sizes))
    of_group, held = np.empty(len(sizes), np.int64), np.zeros(folds, np.int64)
    if sizes.max() == 1:
        of_group[order] = np.arange(len(sizes)) % folds
    else:
        for group in order:
            of_group[group] = held.argmin()
            held[of_group[group]] += sizes[group]
    return of_group[groups]


def cross_fitted(
    labels: Labels, scores: Floats, fold: NDArray[np.int64], fit: Callable[[Labels, Floats], Calibration]
) -> HeldOut:
    """Fit on all folds but one and judge that one, in turn.

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) in [0, 1].
        fold: (N,) see `folds_of`.
        fit: labels and scores -> their calibration.

    Raises:
        CalibrationError: the images of some folds hold one class only.
    """
    tests = [fold == number for number in range(int(fold.max()) + 1)]
    parts = [judged(fit(labels[~test], scores[~test]), labels[test], scores[test]) for test in tests]
    rates = parts[0].alarms
    return HeldOut(
        labels=labels,
        log10_lrs=_joined(tests, [part.log10_lrs for part in parts]),
        tempered=_joined(tests, [part.tempered for part in parts]),
        forged=_joined(tests, [part.forged for part in parts]),
        none=_joined(tests, [part.none for part in parts]),
        alarms={rate: _joined(tests, [part.alarms[rate] for part in parts]) for rate in rates},
    )


def _joined(tests: list[Bools], parts: list[NDArray[Any]]) -> NDArray[Any]:
    """The values (N,) of which each part holds those of its test."""
    whole = np.empty(len(tests[0]), parts[0].dtype)
    for test, part in zip(tests, parts, strict=True):
        whole[test] = part
    return whole


def judged(calibration: Calibration, labels: Labels, scores: Floats) -> HeldOut:
    """Apply a calibration to (N,) labeled scores, as `Calibration.verdict` does to one."""
    above, below = calibration.forged_above, calibration.none_below
    high = np.zeros(len(scores), bool) if above is None else scores > above
    low = np.zeros(len(scores), bool) if below is None else scores < below
    return HeldOut(
        labels,
        calibration.log10_lr(scores),
        calibration.tempered(scores),
        high & ~low,
        low & ~high,
        {rate: scores > limit for rate, limit in calibration.thresholds.items()},
    )


def figures_of(found: HeldOut) -> dict[str, Any]:
    """Compute what docs/metrics.md calls the held-out figures, as JSON values; shares are [share, lower, upper].

    The limits are those of a binomial share (Wilson), as if images were independent. Cllr, Cllr_min and devPAV are
    lir's.
    """
    from lir.data.models import LLRData
    from lir.metrics import cllr, cllr_min
    from lir.metrics.devpav import devpav

    labels = found.labels
    ratios = LLRData(features=found.log10_lrs.reshape(-1, 1), labels=labels)
    fake, real = labels == 1, labels == 0
    decided = found.forged | found.none
    wrong = (found.forged & real) | (found.none & fake)
    return {
        "cllr": cllr(ratios),
        "cllr_min": cllr_min(ratios),
        "devpav": float(devpav(found.log10_lrs, labels)),
        "ece": expected_calibration_error(labels, posterior(found)),
        "ece_by_chance": chance_calibration_error(labels, posterior(found)),
        "ece_temperature": expected_calibration_error(labels, found.tempered),
        "false_alarms": _share(found.forged[real]),
        "misses": _share(found.none[fake]),
        "found": _share(found.forged[fake]),
        "cleared": _share(found.none[real]),
        "inconclusive": _share(~decided),
        "errors_among_decided": _share(wrong[decided]),
        "false_alarms_at": {rate: _share(alarms[real]) for rate, alarms in found.alarms.items()},
        "found_at": {rate: _share(alarms[fake]) for rate, alarms in found.alarms.items()},
    }


def posterior(found: HeldOut) -> Floats:
    """P(fake) of each image (N,) by its likelihood ratio, where fakes are as frequent as among these images."""
    fakes = found.labels.mean()
    return 1 / (1 + 10**-found.log10_lrs * (1 - fakes) / fakes)


def _share(values: Bools) -> list[float]:
    if not len(values):
        return []
    return [float(value) for value in share_interval(int(values.sum()), len(values))]
