"""What comparing systems gave, as plain values."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A metric and its 95 % interval.

    Attributes:
        value: as `ResultTable.metrics` gives it.
        low: the lower limit, NaN if there is none.
        high: the upper limit, likewise.
    """

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """How much larger a metric is than the first system's, on the same images.

    Attributes:
        value: the difference.
        low: lower limit of its 95 % interval, NaN if there is none.
        high: upper limit, likewise.
        p: how likely so large a difference is if there is none, two-sided.
        method: "DeLong" or "bootstrap".
    """

    value: float
    low: float
    high: float
    p: float
    method: str


class Group(NamedTuple):
    """The images of a breakdown that have something in common.

    Attributes:
        name: what that is.
        num_fake: how many are fake.
        num_real: how many are real.
        figures: of each system, those of `breakdown.FIGURES` that are defined.
    """

    name: str
    num_fake: int
    num_real: int
    figures: dict[str, dict[str, Figure]]


class Breakdown(NamedTuple):
    """The figures of parts of the dataset.

    Attributes:
        name: what the images were sorted by.
        of_reals: whether real images were sorted, too, and a group's AUC is against its own; else it is against all.
        groups: in their natural order.
        mean_auc: of each system, the mean of the groups' AUCs; empty unless `of_reals`.
    """

    name: str
    of_reals: bool
    groups: list[Group]
    mean_auc: dict[str, Figure]


class SystemComparison(NamedTuple):
    """What comparing systems gave.

    Attributes:
        figures: of each system, each metric.
        counts: the numbers of images and such of each system.
        differences: of each system but the first, each metric.
        unit: what was drawn: "images", "videos" or "groups".
        num_units: how many of them there are.
        resamples: how often they were drawn.
        breakdowns: the figures of parts of the dataset.
    """

    figures: dict[str, dict[str, Figure]]
    counts: dict[str, dict[str, int]]
    differences: dict[str, dict[str, Difference]]
    unit: str
    num_units: int
    resamples: int
    breakdowns: list[Breakdown]
