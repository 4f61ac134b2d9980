"""The order in which people look at results: what a model leaves open first, what it is surest of last."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ddl_d2.errors import InputError
from ddl_d2.inference.images import RESULTS_NAME
from ddl_d2.inference.results_file import whole_lines
from ddl_d2.inference.summary import score_text
from ddl_d2.predictions.verdict import INCONCLUSIVE, NO_FACE
from ddl_d2.report.html import escape, page, paragraph
from ddl_d2.report.words import headline

COLUMNS = ("place", "verdict", "log10_lr", "score", "file", "overlay", "reason")
"""The columns of the list."""

FAILED = "failed"
"""What the list says of a file that could not be read."""

Row = dict[str, Any]


def read_results(folder: Path) -> list[Row]:
    """Read what `ddl-d2 predict --output` has written so far.

    Raises:
        InputError: the folder has no results, or a line of them is damaged.
    """
    path = folder / RESULTS_NAME
    if not path.is_file():
        raise InputError(f"{path}: no such file; `ddl-d2 predict --output {folder}` makes it")
    # A file that was tried again counts once; a line that is being written not yet.
    rows = {row["file"]: row for row in whole_lines(path) if "model" not in row}
    return list(rows.values())


def in_review_order(rows: Sequence[Row]) -> list[Row]:
    """Sort results for people.

    First what is inconclusive, then where no face was found or nothing could be read, then the rest by how little the
    score says: by the size of log10 LR, or uncalibrated by the distance from the threshold; ties by file.
    """
    return sorted(rows, key=lambda row: (_group(row), _strength(row), row["file"]))


def review_rows(rows: Sequence[Row]) -> list[Row]:
    """The list in order, each row with the `COLUMNS`."""
    return [
        {
            "place": place,
            "verdict": verdict_of(row),
            "log10_lr": row.get("log10_lr"),
            "score": row.get("score"),
            "file": row["file"],
            "overlay": row.get("overlay", ""),
            "reason": row.get("error") or row.get("reason", ""),
        }
        for place, row in enumerate(in_review_order(rows), 1)
    ]


def review_csv(rows: Sequence[Row]) -> str:
    """The list as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(review_rows(rows))
    return text.getvalue()


def review_page(rows: Sequence[Row]) -> str:
    """The list as a page that lies in the folder of results, beside the overlays that it leads to."""
    listed = review_rows(rows)
    verdicts = sorted({row["verdict"] for row in listed}, key=[row["verdict"] for row in listed].index)
    choices = "".join(f'<option value="{escape(one)}">{escape(_named(one))}</option>' for one in verdicts)
    body = "\n".join(map(_line, listed))
    html = (
        "<h1>Files to look at</h1>"
        + paragraph(
            "What the model leaves open comes first, what it is surest of last. Arrow keys go from one to the next."
        )
        + '<p><label for="filter">Show </label><select id="filter"><option value="">all</option>'
        + f'{choices}</select> <span id="count" role="status">{len(listed)} files</span></p>'
        + '<div class="wide"><table><caption>Files in the order in which to look at them</caption><thead><tr>'
        + "".join(f'<th scope="col">{name}</th>' for name in ("", "Verdict", "log10 LR", "Score", "File", "Why"))
        + f'</tr></thead><tbody id="rows">{body}</tbody></table></div>'
    )
    return page("Files to look at", html, script=_SCRIPT)


def verdict_of(row: Mapping[str, Any]) -> str:
    """The verdict of a result, or that it failed."""
    return FAILED if "error" in row else str(row["verdict"])


def _group(row: Mapping[str, Any]) -> int:
    return {INCONCLUSIVE: 0, NO_FACE: 1, FAILED: 1}.get(verdict_of(row), 2)


def _strength(row: Mapping[str, Any]) -> float:
    if row.get("log10_lr") is not None:
        return abs(float(row["log10_lr"]))
    return 0.0 if row.get("score") is None else abs(float(row["score"]) - float(row["threshold"]))


def _named(verdict: str) -> str:
    return "Could not be read" if verdict == FAILED else headline(verdict)


def _line(row: Mapping[str, Any]) -> str:
    name, place = escape(row["file"]), escape(quote(row["overlay"]))
    link = f'<a href="{place}">{name}</a>' if place else f'<span tabindex="0">{name}</span>'
    ratio = "" if row["log10_lr"] is None else f"{row['log10_lr']:+.2f}"
    cells = [
        str(row["place"]),
        escape(_named(row["verdict"])),
        ratio,
        score_text(row["score"]),
        link,
        escape(row["reason"]),
    ]
    return f'<tr data-verdict="{escape(row["verdict"])}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


_SCRIPT = """const rows = [...document.querySelectorAll("#rows tr")];
document.getElementById("filter").addEventListener("change", (event) => {
  const wanted = event.target.value;
  rows.forEach((row) => { row.hidden = wanted !== "" && row.dataset.verdict !== wanted; });
  document.getElementById("count").textContent = `${rows.filter((row) => !row.hidden).length} files`;
});
document.getElementById("rows").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const shown = rows.filter((row) => !row.hidden);
  const next = shown[shown.indexOf(event.target.closest("tr")) + step];
  if (next) next.querySelector("a, [tabindex]").focus();
  event.preventDefault();
});
"""
