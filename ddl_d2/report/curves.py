"""The curves of scores against labels, as plots of a page.

Legend: N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.evaluation.compared import Figure
from ddl_d2.evaluation.comparison_report import figure_text
from ddl_d2.report.plot import Line, plot

BINS = 20
"""Of a histogram of scores."""

_TOPS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""What an axis of a histogram ends at: quarters of these read well."""

Floats = NDArray[np.float64]


class Scored(NamedTuple):
    """The scores of one system.

    Attributes:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) in [0, 1].
        figures: its metrics, of which the plots name AUC and average precision.
    """

    labels: NDArray[np.int64]
    scores: Floats
    figures: Mapping[str, Figure]


def roc_points(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """Count, for each distinct threshold from high to low, the shares of real images and of fakes above it.

    Args:
        labels: (N,) 0 real, 1 fake, both present.
        scores: (N,).

    Returns:
        The shares, both from 0 to 1.
    """
    fakes, reals = _counts_above(labels, scores)
    return np.append(0.0, reals / reals[-1]), np.append(0.0, fakes / fakes[-1])


def precision_points(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """Count, for each distinct threshold from high to low, the recall of fakes and the precision.

    Args:
        labels: (N,) 0 real, 1 fake, both present.
        scores: (N,).

    Returns:
        Recall and precision, in steps as average precision sums them: a precision holds back to the recall before.
    """
    fakes, reals = _counts_above(labels, scores)
    recall, precision = fakes / fakes[-1], fakes / (fakes + reals)
    return np.repeat(np.append(0.0, recall), 2)[1:-1], np.repeat(precision, 2)


def score_plots(systems: Mapping[str, Scored], *, threshold: float) -> list[str]:
    """Draw the ROC and the precision-recall curve of all systems, and of each the histogram of its scores.

    Args:
        systems: their scores of the same images, by name.
        threshold: a score above it is called fake.

    Returns:
        Figures of a page; none if the images are all of one class.
    """
    labels = next(iter(systems.values())).labels
    if not 0 < labels.sum() < len(labels):
        return []
    named = {
        key: {name: f"{name}: {what} {figure_text(one.figures[key], '{:.4f}')}" for name, one in systems.items()}
        for key, what in (("auc", "AUC"), ("ap", "average precision"))
    }
    plots = [
        plot(
            "ROC curve",
            [Line(named["auc"][name], *roc_points(one.labels, one.scores)) for name, one in systems.items()],
            x_label="false alarms: share of real images above the threshold",
            y_label="share of fakes above the threshold",
            description=f"ROC curve. {'; '.join(named['auc'].values())}.",
            diagonal=True,
        ),
        plot(
            "Precision and recall",
            [Line(named["ap"][name], *precision_points(one.labels, one.scores)) for name, one in systems.items()],
            x_label="recall: share of fakes above the threshold",
            y_label="precision: share of fakes among images above it",
            description=f"Precision over recall. {'; '.join(named['ap'].values())}.",
        ),
    ]
    return plots + [_histogram(name, one, threshold) for name, one in systems.items()]


def _histogram(name: str, one: Scored, threshold: float) -> str:
    edges = np.linspace(0, 1, BINS + 1)
    lines, told = [], []
    for what, label in (("fakes", 1), ("real images", 0)):
        scores = one.scores[one.labels == label]
        shares = np.histogram(scores, edges)[0] / len(scores)
        lines.append(Line(f"{len(scores)} {what}", np.repeat(edges, 2)[1:-1], np.repeat(shares, 2)))
        quarters = ", ".join(f"{value:.3f}" for value in np.quantile(scores, (0.25, 0.5, 0.75)))
        told.append(f"quartiles of the {what}: {quarters}")
    highest = max(float(line.y.max()) for line in lines)
    return plot(
        f"Scores: {name}",
        lines,
        x_label=f"score (upright line: the threshold {threshold:g})",
        y_label=f"share of the class, in each of {BINS} bins",
        description=f"Histogram of the scores of {name}; {'; '.join(told)}.",
        top=min(top for top in _TOPS if top >= highest),
        at=threshold,
    )


def _counts_above(labels: NDArray[np.int64], scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count fakes and reals at or above each distinct score, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    fakes = np.cumsum(labels[order])[last]
    return fakes, last + 1 - fakes
