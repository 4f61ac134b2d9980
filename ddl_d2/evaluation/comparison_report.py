"""A comparison of systems as text to read, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from ddl_d2.errors import InputError
from ddl_d2.evaluation.compared import Breakdown, Difference, Figure, Group, SystemComparison
from ddl_d2.evaluation.report import metric_title

_NONE = Figure(math.nan, math.nan, math.nan)

FORMATS = {".md": "github", ".tex": "latex_booktabs", ".csv": "csv", ".json": "json"}
"""What each suffix of an output file is written as."""


class ReportTable(NamedTuple):
    """One table of a report.

    Attributes:
        title: what it shows.
        headers: of its columns.
        rows: of its cells, as text.
        left: how many columns of text it begins with; the others are numbers, but for the last of `ends_in_text`.
        ends_in_text: whether the last column is text.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    left: int = 1
    ends_in_text: bool = True


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
        numbers = len(headers) - table.left - table.ends_in_text
        columns = [*["left"] * table.left, *["right"] * numbers, *["left"] * table.ends_in_text]
        body = tabulate(rows, headers=headers, tablefmt=style, colalign=columns, disable_numparse=True)
        parts.append(f"% {table.title}\n{body}" if style.startswith("latex") else f"{table.title}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def report_tables(found: SystemComparison) -> list[ReportTable]:
    """List the tables of a comparison: the figures of all systems, then the differences of each further one."""
    first = next(iter(found.figures))
    drawn = f"95 % intervals of {found.resamples} resamples of {found.num_units} {found.unit}"
    names = list(found.figures)
    rows = [
        [key, *(figure_text(found.figures[name].get(key), "{:.4f}") for name in names), metric_title(key)]
        for key in _keys(found.figures)
    ]
    rows += [
        [key, *(str(found.counts[name].get(key, "")) for name in names), metric_title(key)]
        for key in _keys(found.counts)
    ]
    tables = [ReportTable(f"Metrics, with {drawn}", ["metric", *names, "meaning"], rows)]
    for name, differences in found.differences.items():
        rows = [[key, figure_text(one, "{:+.4f}"), _p(one.p), one.method] for key, one in differences.items()]
        title = f"{name} minus {first}, on the same images, with 95 % intervals"
        tables.append(ReportTable(title, ["metric", "difference", "p", "method"], rows))
    return tables + [table for one in found.breakdowns for table in _breakdown_tables(one, found)]


def _breakdown_tables(one: Breakdown, found: SystemComparison) -> list[ReportTable]:
    """The tables of a breakdown: its fakes by AUC, worst first; if real images were sorted, too, its false alarms."""
    systems = list(found.figures)

    def ordered(groups: Sequence[Group], key: str, *, highest_first: bool) -> list[Group]:
        def worth(group: Group) -> tuple[bool, float]:
            value = group.figures[systems[0]].get(key, _NONE).value
            return math.isnan(value), -value if highest_first else value

        return sorted(groups, key=worth)

    def lines(groups: Sequence[Group], keys: Sequence[str]) -> list[list[str]]:
        return [
            [group.name, system, str(group.num_fake), str(group.num_real)]
            + [figure_text(group.figures[system].get(key), "{:.3f}") for key in keys]
            for group in groups
            for system in systems
        ]

    against = "the real images of the same group" if one.of_reals else "all real images"
    keys = ("auc", "f1", "iou", "found")
    rows = lines(ordered([group for group in one.groups if group.num_fake], "auc", highest_first=False), keys)
    for system, mean in one.mean_auc.items():
        rows.append(["mean of the AUCs", system, "", "", figure_text(mean, "{:.3f}"), "", "", ""])
        pooled = found.figures[system].get("auc")
        rows.append(["AUC of all together", system, "", "", figure_text(pooled, "{:.3f}"), "", "", ""])
    headers = [one.name, "system", "fakes", "reals", "AUC", "F1", "IoU", "fakes called fake"]
    title = f"By {one.name}, worst AUC first; AUC is against {against}"
    tables = [ReportTable(title, headers, rows, left=2, ends_in_text=False)] if rows else []
    reals = [group for group in one.groups if group.num_real]
    if reals and any("false_alarms" in group.figures[system] for group in reals for system in systems):
        rows = lines(ordered(reals, "false_alarms", highest_first=True), ("false_alarms",))
        headers = [one.name, "system", "fakes", "reals", "reals called fake"]
        title = f"False alarms by {one.name}, worst first"
        tables.append(ReportTable(title, headers, rows, left=2, ends_in_text=False))
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
        "breakdowns": {one.name: _breakdown_json(one) for one in found.breakdowns},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _breakdown_json(one: Breakdown) -> dict[str, Any]:
    groups = {
        group.name: {
            "num_fake": group.num_fake,
            "num_real": group.num_real,
            "systems": {
                name: {key: _plain(figure) for key, figure in figures.items()}
                for name, figures in group.figures.items()
            },
        }
        for group in one.groups
    }
    means = {name: _plain(figure) for name, figure in one.mean_auc.items()}
    return {"auc_against": "own reals" if one.of_reals else "all reals", "mean_auc": means, "groups": groups}


def comparison_csv(found: SystemComparison) -> str:
    """Format a comparison as CSV, one line for each figure, count and difference; NaN is an empty cell.

    Lines of parts of the dataset name what it was sorted by, and the group; with an empty group, the mean of AUCs.
    """
    first = next(iter(found.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["system", "minus", "metric", "value", "low", "high", "p", "method", "sorted_by", "group"])
    for name, figures in found.figures.items():
        writer.writerows([name, "", key, *_cells(one), "", "bootstrap", "", ""] for key, one in figures.items())
        writer.writerows([name, "", key, value, *[""] * 6] for key, value in found.counts[name].items())
    for name, differences in found.differences.items():
        writer.writerows([name, first, key, *_cells(one), "", ""] for key, one in differences.items())
    for one in found.breakdowns:
        writer.writerows(_breakdown_lines(one))
    return text.getvalue()


def _breakdown_lines(one: Breakdown) -> Iterator[list[Any]]:
    for name, mean in one.mean_auc.items():
        yield [name, "", "auc", *_cells(mean), "", "bootstrap", one.name, ""]
    for group in one.groups:
        for name, figures in group.figures.items():
            for key, figure in figures.items():
                yield [name, "", key, *_cells(figure), "", "bootstrap", one.name, group.name]
            yield [name, "", "num_fake", group.num_fake, *[""] * 4, one.name, group.name]
            yield [name, "", "num_real", group.num_real, *[""] * 4, one.name, group.name]


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


def figure_text(one: Figure | Difference | None, form: str) -> str:
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
