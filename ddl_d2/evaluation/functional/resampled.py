"""The metrics of many resamples at once, each given by how often it has every unit.

Legend: N images, U units that are drawn (images, or groups of them), C resamples. `weights` (C, U) are whole numbers as
floats. With every weight 1 each metric is that of `detection` and `localization`; with the weights of a resample it is
theirs of the resampled images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddl_d2.evaluation.functional.localization import f1_iou_per_image, localized_images, pooled_metrics

Floats = NDArray[np.float64]


class ResampledDetection:
    """ROC AUC, accuracy, equal error rate and average precision of one system's scores."""

    def __init__(
        self,
        labels: ArrayLike,
        scores: ArrayLike,
        units: NDArray[np.int64],
        *,
        threshold: float = 0.5,
        subsets: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        """Sort the images once, for all resamples.

        Args:
            labels: (N,) 0 real, 1 fake.
            scores: (N,) finite, higher is more likely fake.
            units: (N,) index of the unit of each image.
            threshold: of the accuracy: fake is score > threshold.
            subsets: (N,) for each metric's name, which fakes it is the AUC of, against all reals.
        """
        fake, values = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
        order = np.argsort(-values, kind="stable")
        ordered = values[order]
        self._units = units[order]
        self._fake = fake[order].astype(np.float64)
        self._right = ((values > threshold) == fake)[order].astype(np.float64)
        new = np.append(ordered[1:] != ordered[:-1], True)
        # The last image of each distinct score, and of each image the number of its score; None if all are distinct.
        self._ends = None if new.all() else np.flatnonzero(new)
        self._ties = np.cumsum(new) - new
        self._subsets = {name: np.flatnonzero((fake & mask)[order]) for name, mask in (subsets or {}).items()}

    def aucs(self, weights: Floats) -> dict[str, Floats]:
        """`auc` and those of the subsets alone, (C,) each; NaN where undefined."""
        ordered = np.take(weights, self._units, axis=1)
        alarms = np.cumsum(ordered * (1 - self._fake), axis=1)
        return self._aucs(ordered, alarms if self._ends is None else alarms[:, self._ends])

    def all(self, weights: Floats) -> dict[str, Floats]:
        """All metrics, `auc`, `accuracy`, `eer`, `ap` and those of the subsets, (C,) each; NaN where undefined."""
        ordered = np.take(weights, self._units, axis=1)
        hits = ordered * self._fake
        if self._ends is None:
            steps = hits
            hits, total = np.cumsum(hits, axis=1), np.cumsum(ordered, axis=1)
        else:
            hits, total = np.cumsum(hits, axis=1)[:, self._ends], np.cumsum(ordered, axis=1)[:, self._ends]
            steps = np.diff(hits, axis=1, prepend=0)
        alarms = total - hits
        fakes, reals = hits[:, -1].copy(), alarms[:, -1]
        found = self._aucs(ordered, alarms)
        found["accuracy"] = divided(ordered @ self._right, total[:, -1])
        found["eer"] = _equal_error_rate(hits, alarms)
        hits /= np.maximum(total, 1, out=total)  # now the precision
        found["ap"] = np.where(reals > 0, divided(np.einsum("ct,ct->c", steps, hits), fakes), math.nan)
        return found

    def _aucs(self, ordered: Floats, alarms: Floats) -> dict[str, Floats]:
        """The area under each ROC curve from the weights (C, N) and the false positives (C, T); exact sums."""
        reals = alarms[:, -1:]
        # Twice the reals below each score, and those of the same score once.
        below = 2 * reals - alarms
        below[:, 1:] -= alarms[:, :-1]
        if self._ends is not None:
            below = np.take(below, self._ties, axis=1)
        fakes = ordered * self._fake
        right = below * fakes
        values = {"auc": divided(right.sum(axis=1), 2 * reals[:, 0] * fakes.sum(axis=1))}
        for name, chosen in self._subsets.items():
            total = np.take(fakes, chosen, axis=1).sum(axis=1)
            values[name] = divided(np.take(right, chosen, axis=1).sum(axis=1), 2 * reals[:, 0] * total)
        return values


def _equal_error_rate(hits: Floats, alarms: Floats) -> Floats:
    """Where the ROC polyline of each resample has equal error rates, from its points (C, T); NaN without a class."""
    fakes, reals, rows = hits[:, -1], alarms[:, -1], np.arange(len(hits))
    some_fakes, some_reals = np.maximum(fakes, 1), np.maximum(reals, 1)

    def excess(index: NDArray[np.int64]) -> Floats:
        """False minus missed rate at a point, which rises from -1 at the origin (index -1) to 1."""
        inside = alarms[rows, index] / some_reals + hits[rows, index] / some_fakes - 1
        return np.where(index < 0, -1.0, inside)

    # Halve the range between a point below zero and one that is not, until they are neighbors.
    before, after = np.full(len(hits), -1), np.full(len(hits), hits.shape[1] - 1)
    while (after - before).max() > 1:
        middle = (before + after) // 2
        under = excess(middle) < 0
        apart = after - before > 1
        before, after = np.where(apart & under, middle, before), np.where(apart & ~under, middle, after)
    low, high = excess(before), excess(after)
    start = np.where(before < 0, 0.0, alarms[rows, before] / some_reals)
    end = alarms[rows, after] / some_reals
    rate = start + divided(-low, high - low) * (end - start)
    return np.where((fakes > 0) & (reals > 0), rate, math.nan)


class ResampledLocalization:
    """The metrics M1 to M4 of one system's maps."""

    def __init__(
        self,
        counts: ArrayLike,
        is_fake: ArrayLike,
        units: NDArray[np.int64],
        *,
        has_mask: ArrayLike | None = None,
        empty_score: str = "skip",
    ) -> None:
        """Score the images once, for all resamples.

        Args:
            counts: as of `localization_metrics`.
            is_fake: likewise.
            units: (N,) index of the unit of each image.
            has_mask: as of `localization_metrics`.
            empty_score: likewise.

        Raises:
            ValueError: as `localization_metrics`.
        """
        table = np.asarray(counts)
        chosen = localized_images(table, is_fake, has_mask=has_mask, empty_score=empty_score)
        self._empty = chosen.empty
        f1, iou = f1_iou_per_image(table, chosen.empty)
        parts = [np.where(chosen.localized, values, 0.0) for values in (chosen.localized, f1, iou)]
        pooled = table * chosen.localized[:, None]
        overall = table * chosen.known[:, None]
        columns = [*parts, *pooled.T, *overall.T]
        self._columns = np.column_stack([np.bincount(units, weights=column) for column in columns])

    def means(self, weights: Floats) -> dict[str, Floats]:
        """`f1` and `iou` alone, (C,) each; NaN where no image is localized."""
        images, f1, iou = (weights @ self._columns[:, :3]).T
        return {"f1": divided(f1, images), "iou": divided(iou, images)}

    def all(self, weights: Floats) -> dict[str, Floats]:
        """All of them, (C,) each: `f1`, `iou`, and those of `pooled_metrics`; NaN where no image is localized."""
        sums = weights @ self._columns
        images = sums[:, 0]
        pools = np.rint(sums[:, 3:]).astype(np.int64)
        values = {"f1": divided(sums[:, 1], images), "iou": divided(sums[:, 2], images)}
        empty = pooled_metrics(pools[:, :4], pools[:, 4:], self._empty)
        undefined = pooled_metrics(pools[:, :4], pools[:, 4:])
        values.update((key, np.where(images > 0, empty[key], undefined[key])) for key in empty)
        return values


def divided(numerator: Floats, denominator: Floats) -> Floats:
    """Divide element by element; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, math.nan), where=denominator != 0)
