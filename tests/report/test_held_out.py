"""The held-out check: folds keep groups whole, nobody is judged by a fit that saw them, and figures add up."""

from collections import Counter

import numpy as np
import pytest

from ddl_d2.errors import CalibrationError
from ddl_d2.evaluation.functional.intervals import share_interval
from ddl_d2.report.calibrating import Options, fitted
from ddl_d2.report.held_out import cross_fitted, figures_of, folds_of, judged, posterior

pytest.importorskip("lir", reason="the extra `calibration` is not installed")
BOUND = {
    "corpus": "a test",
    "counts": {"real": 1, "fake": 1},
    "weights_sha256": "",
    "tensors_sha256": "",
    "settings": {},
    "created": "2026-01-31",
}


def _fit(labels, scores):
    return fitted(labels, scores, options=Options("a test"), bound=BOUND)


def _system(rng, total: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 2, total)
    return labels, 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1)))


def test_folds_keep_groups_whole_and_are_of_one_size(rng):
    groups = np.concatenate([np.arange(30), rng.integers(0, 30, 170)])
    fold = folds_of(groups, 4)
    assert all(len(set(fold[groups == group])) == 1 for group in range(30))
    sizes = Counter(fold.tolist())
    assert set(sizes) == {0, 1, 2, 3}
    assert max(sizes.values()) - min(sizes.values()) <= np.bincount(groups).max()
    with pytest.raises(CalibrationError, match="fewer --folds"):
        folds_of(np.array([0, 0, 1]), 3)


def test_each_fold_is_judged_by_a_fit_to_the_others(rng):
    labels, scores = _system(rng, 400)
    fold = folds_of(np.arange(400), 4)
    found = cross_fitted(labels, scores, fold, _fit)
    for number in range(4):
        test = fold == number
        made = _fit(labels[~test], scores[~test])
        np.testing.assert_array_equal(found.log10_lrs[test], made.log10_lr(scores[test]))
        labels_said = [made.verdict(score).label for score in scores[test]]
        assert (found.forged[test] == [label == "forged" for label in labels_said]).all()
        assert (found.none[test] == [label == "no forgery found" for label in labels_said]).all()


def test_figures_equal_slow_references(rng):
    labels, scores = _system(rng, 300)
    found = judged(_fit(labels, scores), labels, scores)
    figures = figures_of(found)
    ratios = 10.0**found.log10_lrs
    # Brümmer and du Preez, Computer Speech and Language 20, 2006, equation of Cllr.
    slow = sum(np.log2(1 + 1 / r) for r in ratios[labels == 1]) / labels.sum() / 2
    slow += sum(np.log2(1 + r) for r in ratios[labels == 0]) / (1 - labels).sum() / 2
    assert figures["cllr"] == pytest.approx(slow, abs=1e-12)
    assert figures["cllr_min"] <= figures["cllr"] + 1e-12
    assert figures["false_alarms"] == pytest.approx(
        share_interval(int(found.forged[labels == 0].sum()), int((labels == 0).sum()))
    )
    decided = int((found.forged | found.none).sum())
    assert figures["inconclusive"][0] == pytest.approx(1 - decided / 300)
    wrong = int((found.forged & (labels == 0)).sum() + (found.none & (labels == 1)).sum())
    assert figures["errors_among_decided"][0] == pytest.approx(wrong / decided)
    share = labels.mean()
    np.testing.assert_allclose(posterior(found), ratios * share / (ratios * share + 1 - share))


def _slow_pav(labels, values) -> np.ndarray:
    """Pool adjacent violators, a value at a time: the share of fakes of each image's block, classes weighed equally."""
    fakes, reals = labels.sum(), (1 - labels).sum()
    blocks: list[list[float]] = []  # weight of fakes, weight of reals, number of distinct values
    distinct = np.unique(values)
    for value in distinct:
        at = labels[values == value]
        blocks.append([at.sum() / fakes, (1 - at).sum() / reals, 1])
        while len(blocks) > 1 and blocks[-2][0] * sum(blocks[-1][:2]) >= blocks[-1][0] * sum(blocks[-2][:2]):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    shares = np.concatenate([np.full(int(n), a / (a + b)) for a, b, n in blocks])
    return shares[np.searchsorted(distinct, values)]


def test_cllr_min_and_devpav_equal_slow_references(rng):
    labels, scores = _system(rng, 250)
    found = judged(_fit(labels, scores), labels, scores)
    # Ratios that are off, so that their own calibration differs from them.
    found = found._replace(log10_lrs=1.5 * found.log10_lrs + 0.2)
    figures = figures_of(found)
    shares = _slow_pav(labels, found.log10_lrs)
    slow = np.mean(-np.log2(shares[labels == 1])) / 2 + np.mean(-np.log2(1 - shares[labels == 0])) / 2
    assert figures["cllr_min"] == pytest.approx(slow, abs=1e-9)
    inner = (shares > 0) & (shares < 1)
    x, y = found.log10_lrs[inner], np.log10(shares[inner] / (1 - shares[inner]))
    order = np.lexsort((y, x))
    dense = np.linspace(x.min(), x.max(), 400_001)
    gap = np.abs(np.interp(dense, x[order], y[order]) - dense)
    assert figures["devpav"] == pytest.approx(gap.mean(), abs=1e-4)


def test_rates_hold_on_held_out_images(rng):
    labels, scores = _system(rng, 4000)
    figures = figures_of(cross_fitted(labels, scores, folds_of(np.arange(4000), 5), _fit))
    for name in ("false_alarms", "misses"):
        _, low, high = figures[name]
        assert low <= 0.05 <= high
    assert figures["ece"] <= 0.04
    assert figures["devpav"] < 0.2


def test_ratios_that_are_ten_times_too_large_are_off_by_one(rng):
    labels, scores = _system(rng, 2000)
    found = judged(_fit(labels, scores), labels, scores)
    shifted = figures_of(found._replace(log10_lrs=found.log10_lrs + 1))
    assert shifted["devpav"] == pytest.approx(1, abs=0.15)
    assert shifted["cllr_min"] == pytest.approx(figures_of(found)["cllr_min"], abs=1e-9)
    assert shifted["cllr"] > figures_of(found)["cllr"] + 0.1
