"""The report of files that `ddl-d2 predict --output` looked at: whatever is known of each, without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ddl_d2.inference.images import RESULTS_NAME
from ddl_d2.inference.results_file import whole_lines
from ddl_d2.io.image import read_image
from ddl_d2.report.gallery import GALLERY_SCRIPT, Card, Gallery, View, galleries_section, image_uri, toolbar
from ddl_d2.report.html import bullets, escape, facts, page, paragraph, section, table
from ddl_d2.report.review import FAILED, Row, in_review_order, read_results, verdict_of
from ddl_d2.report.words import UNCALIBRATED, headline, propositions
from ddl_d2.version import __version__

_LONGEST = 960
"""Of what predict drew, pixels: three pictures side by side, with a line of text."""

_LIMITS = (
    "A score orders images. It is not the probability that an image is forged, which depends on how many of the images "
    "that one looks at are.",
    "The forgery map says where a forgery would be, not whether there is one: it lights up on authentic images, too.",
    "Forgeries of kinds that the model was not trained on, or that later compression has covered, go unnoticed.",
)


def results_page(folder: Path, *, title: str, number: int) -> str:
    """Make the page of a folder of results.

    Args:
        folder: what `ddl-d2 predict --output` has written.
        title: of the page.
        number: of files shown with each verdict, at most.

    Raises:
        InputError: the folder has no results, or they are damaged.
        ImageReadError: a drawing in it cannot be read.
    """
    rows = read_results(folder)
    model = next(whole_lines(folder / RESULTS_NAME), {}).get("model", {})
    found = [row for row in in_review_order(rows) if verdict_of(row) != FAILED]
    failed = [row for row in rows if verdict_of(row) == FAILED]
    counts = Counter(map(verdict_of, found))
    galleries = [
        Gallery(
            headline(verdict),
            f"{min(total, number)} of {total} files, those that the model is least sure of first.",
            [_card(folder, row) for row in [row for row in found if row["verdict"] == verdict][:number]],
            wide=True,
        )
        for verdict, total in counts.items()
    ]
    listed = [[headline(verdict), f"{total:,}"] for verdict, total in counts.most_common()]
    if failed:
        listed.append(["Could not be read", f"{len(failed):,}"])
    calibrated = any(row.get("calibration") for row in found)
    parts = [
        f"<h1>{escape(title)}</h1>",
        paragraph(f"Made on {date.today().isoformat()} with ddl_d2 {__version__}.", kind="faint"),
        section("In short", table(["verdict", "files"], listed, caption=f"Verdicts on {len(rows):,} files")),
        _measured(model, "" if calibrated else UNCALIBRATED),
        section("Images", toolbar(galleries), name="images"),
        galleries_section("Files by verdict", galleries, name="files"),
        _failures(failed),
        section("What this does not say", bullets(_LIMITS), name="limits"),
    ]
    return page(title, "\n".join(filter(None, parts)), script=GALLERY_SCRIPT)


def _measured(model: Mapping[str, Any], note: str) -> str:
    weighed = facts((f"Proposition {number}", text) for number, text in enumerate(propositions("image").values(), 1))
    named = {**model, "weights": Path(str(model.get("weights", "not noted"))).name}
    made_by = facts(
        (name.replace("_", " ").capitalize(), "yes" if value is True else value) for name, value in named.items()
    )
    return section("What was measured", made_by, weighed, *([paragraph(note)] if note else []), name="measured")


def _failures(failed: Sequence[Row]) -> str:
    if not failed:
        return ""
    listed = [[row["file"], row["error"]] for row in failed]
    return section("Not read", table(["file", "why"], listed, caption="Files that could not be read"))


def _card(folder: Path, row: Row) -> Card:
    name = row["file"]
    views = []
    if row.get("overlay"):
        drawn = read_image(folder / row["overlay"])
        views.append(
            View("As predict drew it", f"{name}, its forged pixels and its forgery map", image_uri(drawn, _LONGEST))
        )
    return Card(Path(name).name, row["verdict"], None, "", views, _known(row), _said(row))


def _known(row: Row) -> list[tuple[str, object]]:
    """What the result holds, as names and values."""
    known: list[tuple[str, object]] = [("File", row["file"])]
    if row.get("score") is not None:
        known.append(("Score", f"{row['score']:.4f}"))
    if row.get("log10_lr") is not None:
        known.append(("log10 likelihood ratio", f"{row['log10_lr']:+.2f}"))
    if row.get("faces"):
        scores = ", ".join(f"{face['score']:.4f}" for face in row["faces"])
        known.append(("Faces", f"{len(row['faces'])}, scores {scores}"))
    if row.get("regions"):
        largest = row["regions"][0]
        known.append(("Regions", f"{len(row['regions'])}, the largest {largest['area']:,} pixels at {largest['box']}"))
    if "uncertainty" in row:
        known.append(("Over views", f"score ± {row['uncertainty']['score_spread']:.4f}"))
    if "frames" in row:
        known.append(("Frames", len(row["frames"])))
    return known


def _said(row: Row) -> list[str]:
    """The sentences of the result."""
    said = [f"{row['reason']}."] if row.get("reason") else []
    if "fragility" in row:
        said.append(f"{row['fragility']['reason']}.")
    if "explanation" in row:
        said += row["explanation"]["text"].splitlines()
    return said
