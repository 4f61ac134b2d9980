"""The two figures of a held-out check: a reliability diagram and a Tippett plot."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddl_d2.evaluation.functional.calibration import reliability_bins
from ddl_d2.evaluation.functional.intervals import share_interval
from ddl_d2.io.atomic import write_whole
from ddl_d2.report.held_out import HeldOut, posterior

_FORGED, _REAL = "#b3402a", "#2a6fb3"


def draw_calibration(found: HeldOut, path: str | os.PathLike[str], *, title: str) -> None:
    """Write `calibration_png` as a file. Raises OSError if it cannot be written."""
    write_whole(Path(path), calibration_png(found, title=title))


def calibration_png(found: HeldOut, *, title: str) -> bytes:
    """Draw both figures, side by side.

    Args:
        found: what calibrations said of labeled images.
        title: above the figures.

    Returns:
        The content of a PNG file.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, found)
    _draw_tippett(right, found)
    figure.suptitle(title)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _draw_reliability(axes: Axes, found: HeldOut) -> None:
    """Share of fakes against stated probability, with 95 % limits, and how many images each point stands for."""
    bins = reliability_bins(found.labels, posterior(found))
    shares = np.array([share_interval(int(k), int(n)) for k, n in zip(bins.fakes, bins.total, strict=True)])
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="calibrated")
    lengths = np.stack([shares[:, 0] - shares[:, 1], shares[:, 2] - shares[:, 0]])
    axes.errorbar(
        bins.stated,
        shares[:, 0],
        yerr=lengths.clip(0),
        fmt="o",
        color=_FORGED,
        capsize=3,
        label="images, 95 % limits",
    )
    for x, y, total in zip(bins.stated, shares[:, 0], bins.total, strict=True):
        axes.annotate(str(total), (x, y), textcoords="offset points", xytext=(7, -11), fontsize=8, color="0.35")
    axes.set(
        xlim=(-0.02, 1.04),
        ylim=(-0.04, 1.04),
        xlabel="stated probability of a fake (bin mean; number of images beside)",
        ylabel="share of fakes",
        title="Reliability",
    )
    axes.legend(loc="upper left", fontsize=9)
    axes.grid(alpha=0.25)


def _draw_tippett(axes: Axes, found: HeldOut) -> None:
    """Share of images whose ratio is above each value, by class."""
    for name, label, color in (("forged images", 1, _FORGED), ("real images", 0, _REAL)):
        values = np.sort(found.log10_lrs[found.labels == label])
        # From 1 down to 0: a step at each image.
        shares = 1 - np.arange(len(values) + 1) / len(values)
        axes.step([values[0], *values], shares, where="post", color=color, label=name)
    axes.axvline(0, color="0.6", linestyle="--")
    axes.set(
        ylim=(0, 1.02),
        xlabel="log10 likelihood ratio (above 0: supports forged)",
        ylabel="share of images with a larger ratio",
        title="Tippett plot",
    )
    axes.legend(loc="best", fontsize=9)
    axes.grid(alpha=0.25)
