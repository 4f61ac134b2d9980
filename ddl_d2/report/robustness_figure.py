"""A robustness report as small multiples: one panel for each corruption."""

from __future__ import annotations

import io
import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddl_d2.data.transforms.corruptions import CORRUPTIONS, TEST_ONLY
from ddl_d2.report.robustness import AS_IT_IS, Condition
from ddl_d2.report.robustness_report import RobustnessReport

_LINES = {
    "auc": ("AUC", "#1f4e9c", "o"),
    "f1": ("F1 of the forged pixels", "#c8641e", "s"),
    "false_alarms": ("real images called fake", "#a01428", "^"),
}
_COLUMNS = 5


def robustness_figure(report: RobustnessReport, *, title: str) -> bytes:
    """Draw AUC, F1 and false alarms over the levels of each corruption.

    Args:
        report: the report.
        title: what was measured on what.

    Returns:
        a PNG file.
    """
    names = list(dict.fromkeys(name for name, _ in report.figures if name != AS_IT_IS))
    levels = [0, *sorted({level for name, level in report.figures if name != AS_IT_IS})]
    columns = min(_COLUMNS, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    with matplotlib.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        # Not pyplot's: that one keeps every figure, and asks for a screen.
        figure = Figure(figsize=(2.1 * columns + 0.6, 1.75 * rows + 1.0), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, name in zip(panels, names, strict=False):
            _draw(panel, report, name, levels)
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(_LINES), frameon=False)
        note = "by level (0: as they are; strengths of levels 1 to 5 above each panel); * kept for testing"
        figure.suptitle(f"{title}\n{note}", fontsize=9)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()


def _draw(panel: Axes, report: RobustnessReport, name: str, levels: list[int]) -> None:
    plain = next(iter(report.figures.values()))
    for key, (label, color, marker) in _LINES.items():
        values = [plain[key], *(report.figures[Condition(name, level)][key] for level in levels[1:])]
        if not all(map(math.isnan, values)):
            panel.axhline(plain[key], color=color, linewidth=0.6, linestyle=":")
            panel.plot(levels, values, color=color, marker=marker, markersize=3, linewidth=1.2, label=label)
    low, high = (CORRUPTIONS[name].strength(level) for level in (levels[1], levels[-1]))
    mark = " *" if name in TEST_ONLY else ""
    panel.set_title(f"{name.replace('_', ' ')}{mark}  {low:g} … {high:g}", fontsize=8)
    panel.set_ylim(-0.03, 1.03)
    panel.set_xticks(levels)
    panel.grid(axis="y", linewidth=0.3, alpha=0.5)
