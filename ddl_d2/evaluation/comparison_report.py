"""A comparison of systems as text to read, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from ddl_d2.errors import InputError
from ddl_d2.evaluation.comparison import Difference, Figure, SystemComparison
from ddl_d2.evaluation.report import metric_title

FORMATS = {".md": "github", ".tex": "latex_booktabs", ".csv": "csv", ".json": "json"}
"""What each suffix of an output file is written as."""


class ReportTable(NamedTuple):
    """One table of a report.

    Attributes:
        title: what it shows.
        headers: of its columns.
        rows: of its cells, as text.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]


def check_output(path: Path) -> None:
    """Raise InputError unless the file's suffix names a format of `FORMATS`."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: the comparison is written as {', '.join(FORMATS)}, not {path.suffix or 'without'}")


def comparison_text(found: SystemComparison, style: str = "simple") -> str:
    """Format a comparison as tables to read.

    Args:
        found: the comparison.
        style: of `tabulate`: "simple" for a terminal, "github" for Markdown, "latex_booktabs" for LaTeX.
    """
    parts = []
    for table in report_tables(found):
        rows, headers = table.rows, table.headers
        if style == "github":
            rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            headers = [cell.replace("|", "\\|") for cell in headers]
        columns = ["left", *["right"] * (len(headers) - 2), "left"]
        body = tabulate(rows, headers=headers, tablefmt=style, colalign=columns, disable_numparse=True)
        parts.append(f"% {table.title}\n{body}" if style.startswith("latex") else f"{table.title}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def report_tables(found: SystemComparison) -> list[ReportTable]:
    """List the tables of a comparison: the figures of all systems, then the differences of each further one."""
    first = next(iter(found.figures))
    drawn = f"95 % intervals of {found.resamples} resamples of {found.num_units} {found.unit}"
    names = list(found.figures)
    rows = [
        [key, *(_shown(found.figures[name].get(key), "{:.4f}") for name in names), metric_title(key)]
        for key in _keys(found.figures)
    ]
    rows += [
        [key, *(str(found.counts[name].get(key, "")) for name in names), metric_title(key)]
        for key in _keys(found.counts)
    ]
    tables = [ReportTable(f"Metrics, with {drawn}", ["metric", *names, "meaning"], rows)]
    for name, differences in found.differences.items():
        rows = [[key, _shown(one, "{:+.4f}"), _p(one.p), one.method] for key, one in differences.items()]
        title = f"{name} minus {first}, on the same images, with 95 % intervals"
        tables.append(ReportTable(title, ["metric", "difference", "p", "method"], rows))
    return tables


def comparison_json(found: SystemComparison, settings: Mapping[str, Any]) -> str:
    """Format a comparison as JSON, NaN as null, with the settings that it was made with."""
    content = {
        **settings,
        "unit": found.unit,
        "num_units": found.num_units,
        "resamples": found.resamples,
        "first": next(iter(found.figures)),
        "systems": {
            name: {**{key: _plain(one) for key, one in figures.items()}, **found.counts[name]}
            for name, figures in found.figures.items()
        },
        "differences": {
            name: {key: _plain(one) for key, one in values.items()} for name, values in found.differences.items()
        },
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def comparison_csv(found: SystemComparison) -> str:
    """Format a comparison as CSV, one line for each figure, count and difference; NaN is an empty cell."""
    first = next(iter(found.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["system", "minus", "metric", "value", "low", "high", "p", "method"])
    for name, figures in found.figures.items():
        writer.writerows([name, "", key, *_cells(one), "", "bootstrap"] for key, one in figures.items())
        writer.writerows([name, "", key, value, "", "", "", ""] for key, value in found.counts[name].items())
    for name, differences in found.differences.items():
        writer.writerows([name, first, key, *_cells(one)] for key, one in differences.items())
    return text.getvalue()


def comparison_file(found: SystemComparison, path: Path, settings: Mapping[str, Any]) -> str:
    """Format a comparison as the suffix of the file says. Raises InputError for an unknown one."""
    check_output(path)
    style = FORMATS[path.suffix]
    if style == "csv":
        return comparison_csv(found)
    return comparison_json(found, settings) if style == "json" else comparison_text(found, style)


def _keys(values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All metrics that any system has, in their order."""
    return list(dict.fromkeys(key for of_system in values.values() for key in of_system))


def _shown(one: Figure | Difference | None, form: str) -> str:
    """A value and its interval, as `form` writes numbers; "" for a metric that a system does not have."""
    if one is None:
        return ""
    if math.isnan(one.value):
        return "n/a"
    limits = "[n/a]" if math.isnan(one.low) else f"[{form.format(one.low)}, {form.format(one.high)}]"
    return f"{form.format(one.value)} {limits}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return "< .0001" if value < 0.0001 else f"{value:.4f}"


def _plain(one: Figure | Difference) -> dict[str, Any]:
    """The fields of a figure, NaN as None."""
    return {key: _known(value) for key, value in one._asdict().items()}


def _cells(one: Figure | Difference) -> list[Any]:
    return ["" if _known(value) is None else value for value in one]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
