"""The figures of parts of a dataset, for many resamples at once: by forgery type, source, size and the like.

Legend: N images, U units that are drawn together, C resamples, n images of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.evaluation.compared import Breakdown, Figure, Group
from ddl_d2.evaluation.facts import Sorting
from ddl_d2.evaluation.functional.bootstrap import percentile_interval
from ddl_d2.evaluation.functional.resampled import (
    Floats,
    ResampledDetection,
    ResampledLocalization,
    divided,
)
from ddl_d2.evaluation.resampling import Units
from ddl_d2.evaluation.results import ImageResult

FIGURES = ("auc", "f1", "iou", "found", "false_alarms")
"""Of each group: AUC, F1 and IoU (M1), the share of fakes above the threshold, and that of real images."""

MEAN = ""
"""The group that stands for all of a sorting: its AUC is the mean of theirs."""


class Part(NamedTuple):
    """A figure of a group of a sorting."""

    sorting: str
    group: str
    figure: str


class ResampledBreakdown:
    """All figures of one system's groups, over any number of resamples."""

    def __init__(
        self,
        rows: Sequence[ImageResult],
        units: Units,
        sortings: Sequence[Sorting],
        *,
        threshold: float = 0.5,
        empty_score: str = "skip",
    ) -> None:
        """Prepare for many resamples.

        Args:
            rows: the images, sorted, with labels; none or all with a score.
            units: of them.
            sortings: of them.
            threshold: a score above it is called fake, unless no face was found.
            empty_score: as in `ResultTable.metrics`.
        """
        labels = np.array([row.is_fake for row in rows], dtype=np.int64)
        counts = np.array([row.counts or (0, 0, 0, 0) for row in rows], dtype=np.int64)
        has_mask = np.array([row.counts is not None for row in rows])
        scores = called = None
        if rows[0].score is not None:
            scores = np.array([row.score for row in rows], dtype=np.float64)
            called = (scores > threshold) & np.array([row.has_face for row in rows])
        self._groups: list[tuple[Sorting, str, _Group]] = []
        for sorting in sortings:
            for name, chosen in sorting.groups.items():
                within = labels[chosen], units.of_image[chosen]
                group = _Group(
                    *within,
                    scores=None if scores is None or not sorting.of_reals else scores[chosen],
                    called=None if called is None else called[chosen],
                    counts=counts[chosen],
                    has_mask=has_mask[chosen],
                    empty_score=empty_score,
                )
                self._groups.append((sorting, name, group))
        subsets = {
            _key(sorting, name): _mask(chosen, len(rows))
            for sorting in sortings
            if not sorting.of_reals
            for name, chosen in sorting.groups.items()
        }
        self._against_all = None
        if scores is not None and subsets:
            self._against_all = ResampledDetection(labels, scores, units.of_image, subsets=subsets)

    def all(self, counts: Floats) -> dict[Part, Floats]:
        """Compute them for some resamples.

        Args:
            counts: (C, U) how often each unit was drawn.

        Returns:
            (C,) for each figure of each group; NaN where it is undefined.
        """
        aucs = {} if self._against_all is None else self._against_all.aucs(counts)
        values: dict[Part, Floats] = {}
        of_sorting: dict[str, list[Floats]] = {}
        for sorting, name, group in self._groups:
            found = group.all(counts)
            if _key(sorting, name) in aucs:
                found["auc"] = aucs[_key(sorting, name)]
            values.update((Part(sorting.name, name, key), value) for key, value in found.items())
            if sorting.of_reals and "auc" in found:
                of_sorting.setdefault(sorting.name, []).append(found["auc"])
        for name, parts in of_sorting.items():
            values[Part(name, MEAN, "auc")] = _mean(np.stack(parts))
        return values


def breakdowns_of(
    sortings: Sequence[Sorting],
    rows: Sequence[ImageResult],
    parts: Mapping[str, ResampledBreakdown],
    drawn: Mapping[str, Mapping[Part, Floats]],
    num_units: int,
) -> list[Breakdown]:
    """Put the figures of all groups beside their intervals.

    Args:
        sortings: of the images.
        rows: the images.
        parts: of each system.
        drawn: of each system, what `ResampledBreakdown.all` gave, (R,) each.
        num_units: U.
    """
    # The images as they are: a resample that has each unit once.
    once = np.ones((1, num_units))
    figures = {
        name: {
            key: Figure(float(value[0]), *percentile_interval(drawn[name][key]))
            for key, value in part.all(once).items()
        }
        for name, part in parts.items()
    }
    labels = np.array([row.is_fake for row in rows])

    def of(sorting: Sorting, group: str) -> dict[str, dict[str, Figure]]:
        keys = {key: Part(sorting.name, group, key) for key in FIGURES}
        return {
            name: {key: found[part] for key, part in keys.items() if part in found} for name, found in figures.items()
        }

    found = []
    for sorting in sortings:
        groups = []
        for group, chosen in sorting.groups.items():
            fakes = int(np.count_nonzero(labels[chosen]))
            groups.append(Group(group, fakes, len(chosen) - fakes, of(sorting, group)))
        means = {name: of_group["auc"] for name, of_group in of(sorting, MEAN).items() if "auc" in of_group}
        found.append(Breakdown(sorting.name, sorting.of_reals, groups, means))
    return found


class _Group:
    """The figures of one group of images."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        units: NDArray[np.int64],
        *,
        scores: Floats | None,
        called: NDArray[np.bool_] | None,
        counts: NDArray[np.int64],
        has_mask: NDArray[np.bool_],
        empty_score: str,
    ) -> None:
        # Only the units that have images of the group: a group may be a thousandth of all.
        self._units, local = np.unique(units, return_inverse=True)
        self._detection = None if scores is None else ResampledDetection(labels, scores, local)
        self._calls = None
        if called is not None:
            columns = [labels == 1, (labels == 1) & called, labels == 0, (labels == 0) & called]
            self._calls = np.column_stack([np.bincount(local, weights=column) for column in columns])
        self._localization = None
        if has_mask[labels == 1].any():
            self._localization = ResampledLocalization(
                counts, labels, local, has_mask=has_mask, empty_score=empty_score
            )

    def all(self, weights: Floats) -> dict[str, Floats]:
        """Compute `FIGURES`, (C,) each, from how often each unit was drawn (C, U); those that the group can have."""
        drawn = np.take(weights, self._units, axis=1)
        found: dict[str, Floats] = {}
        if self._detection is not None:
            found.update(self._detection.aucs(drawn))
        if self._calls is not None:
            fakes, fakes_called, reals, reals_called = (drawn @ self._calls).T
            found["found"], found["false_alarms"] = divided(fakes_called, fakes), divided(reals_called, reals)
        if self._localization is not None:
            found.update(self._localization.means(drawn))
        return found


def _mean(values: Floats) -> Floats:
    """The mean (C,) over groups (G, C) of those that are defined; NaN where none is."""
    known = ~np.isnan(values)
    return divided(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def _key(sorting: Sorting, group: str) -> str:
    return f"{sorting.name}\0{group}"


def _mask(chosen: NDArray[np.int64], total: int) -> NDArray[np.bool_]:
    mask = np.zeros(total, dtype=bool)
    mask[chosen] = True
    return mask
