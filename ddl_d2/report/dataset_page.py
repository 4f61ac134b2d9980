"""The report of prediction stores on a labeled dataset: one HTML file that works from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import yaml

from ddl_d2.evaluation.compared import SystemComparison
from ddl_d2.evaluation.comparison_report import report_tables
from ddl_d2.report.calibration_figures import calibration_png
from ddl_d2.report.chosen import store_galleries
from ddl_d2.report.curves import Scored, score_plots
from ddl_d2.report.gallery import GALLERY_SCRIPT, galleries_section, toolbar
from ddl_d2.report.held_out import figures_of
from ddl_d2.report.html import bullets, escape, facts, page, paragraph, png_figure, section, table
from ddl_d2.report.judged import Judged
from ddl_d2.report.robustness_figure import robustness_figure
from ddl_d2.report.robustness_report import RobustnessReport, summary_line
from ddl_d2.report.words import UNCALIBRATED, propositions
from ddl_d2.version import __version__

_HELD_OUT = {
    "cllr": "Cllr: cost of the likelihood ratios; 0 is perfect, 1 says nothing",
    "cllr_min": "Cllr_min: the part of it that better calibration cannot mend",
    "ece": "expected calibration error",
}
_SETTINGS = {
    "threshold": "Threshold of scores and forgery maps",
    "empty_score": "F1 of a fake with an empty mask",
    "video_score": "A video's score from its frames'",
}
_LIMITS = (
    "All figures hold for the images of this dataset. Images of another origin, or forged in another way, may give "
    "others.",
    "A score orders images. It is not the probability that an image is forged, which depends on how many of the "
    "images that one looks at are.",
    "The forgery map says where a forgery would be, not whether there is one: it lights up on authentic images, too.",
    "A 95 % interval says how far a figure would move with other images of the same kind; it knows nothing of images "
    "of another kind.",
)


class DatasetReport(NamedTuple):
    """What the report of a dataset is made of.

    Attributes:
        title: of the page.
        dataset: its name.
        systems: their results on the same images.
        comparison: the figures, as `ddl-d2 compare` finds them.
        rows: the dataset dicts, by image id.
        settings: how it was measured, by the names of the options.
        robustness: a run of `ddl-d2 robustness`, and what it was run on.
        number: of images in a gallery, at most.
    """

    title: str
    dataset: str
    systems: Sequence[Judged]
    comparison: SystemComparison
    rows: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, object]
    robustness: tuple[RobustnessReport, str] | None = None
    number: int = 12


def dataset_page(report: DatasetReport) -> str:
    """Make the page.

    Raises:
        ImageReadError: an image of a gallery cannot be read.
        StoreError: its forgery map cannot be.
    """
    systems = report.systems
    galleries = {one.name: store_galleries(one, report.rows, number=report.number) for one in systems}
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        paragraph(f"Made on {date.today().isoformat()} with ddl_d2 {__version__}.", kind="faint"),
        _contents(report),
        *map(_operating_point, systems),
        _measured(report),
        _figures(report.comparison),
        _curves(report),
        *map(_calibration, systems),
        _robustness(report.robustness),
        section("Images", toolbar(gallery for found in galleries.values() for gallery in found), name="images"),
        *(
            galleries_section(f"Images judged by {name}", found, name=f"images-{number}")
            for number, (name, found) in enumerate(galleries.items(), 1)
        ),
        section("What this does not say", bullets(_LIMITS), name="limits"),
    ]
    return page(report.title, "\n".join(filter(None, parts)), script=GALLERY_SCRIPT)


def _contents(report: DatasetReport) -> str:
    """Links to the parts of the page."""
    names = ["measured", "figures", "curves", *(["robustness"] if report.robustness else []), "images", "limits"]
    links = " · ".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in names)
    return f'<nav aria-label="Parts of the report"><p>{links}</p></nav>'


def _operating_point(one: Judged) -> str:
    rows = one.verdict_table()
    counted = table(
        ["verdict", "real images", "fakes"], rows, caption="Verdicts, with 95 % intervals as if images were independent"
    )
    return section(f"In short: {one.name}", *map(paragraph, one.operating_point()), counted)


def _measured(report: DatasetReport) -> str:
    """What was measured, on what and how."""
    counts = next(iter(report.comparison.counts.values()))
    on = [
        ("Dataset", report.dataset),
        ("Images", f"{counts['num_images']:,}: {counts['num_real']:,} real, {counts['num_fake']:,} fake"),
        *((_SETTINGS[name], "left out" if value == "skip" else value) for name, value in report.settings.items()),
    ]
    weighed = facts((f"Proposition {number}", text) for number, text in enumerate(propositions("image").values(), 1))
    parts = [facts(on), weighed]
    for one in report.systems:
        parts += [f"<h3>{escape(one.name)}</h3>", facts(store_facts(one))]
    return section("What was measured", *parts, name="measured")


def store_facts(one: Judged) -> list[tuple[str, object]]:
    """What identifies the predictions of a store."""
    meta = one.store.meta
    config = str(meta.get("config") or "")
    content = yaml.safe_load(config) if config else None
    model = content.get("MODEL", {}).get("META_ARCHITECTURE", "") if isinstance(content, dict) else ""
    versions = ", ".join(f"{name} {value}" for name, value in meta.get("versions", {}).items())
    calibration = "none: uncalibrated"
    if one.calibration is not None:
        calibration = f"{one.calibration.about_corpus}, made {one.calibration.created}"
        calibration += f", fingerprint {one.calibration.fingerprint}"
    return [
        ("Architecture", model or "not noted"),
        ("sha256 of the weights", meta.get("weights_sha256") or "not noted"),
        ("sha256 of the config", hashlib.sha256(config.encode()).hexdigest() if config else "not noted"),
        ("Calibration", calibration),
        ("Forgery maps", "yes" if one.store.has_maps else "none"),
        ("Versions", versions or "not noted"),
    ]


def _figures(found: SystemComparison) -> str:
    """The tables of `ddl-d2 compare`, cell by cell; breakdowns are folded."""
    first, *others = [table(one.headers, one.rows, caption=one.title) for one in report_tables(found)]
    plain = len(found.differences)
    parts = [first, *others[:plain]]
    if others[plain:]:
        parts.append(f"<details><summary>Parts of the dataset</summary>{''.join(others[plain:])}</details>")
    return section("Figures", *parts, name="figures")


def _curves(report: DatasetReport) -> str:
    scored = {one.name: Scored(one.labels, one.scores, report.comparison.figures[one.name]) for one in report.systems}
    plots = score_plots(scored, threshold=report.systems[0].threshold)
    note = "Lines with many points are drawn by those that can be seen; all figures are of all images."
    if not plots:
        note = "There are no curves: the images are all of one class."
    return section("Curves", f'<div class="plots">{"".join(plots)}</div>', paragraph(note, kind="faint"), name="curves")


def _calibration(one: Judged) -> str:
    """How the calibration does on these images, or that there is none."""
    heading = f"Calibration: {one.name}"
    if one.calibration is None:
        return section(heading, paragraph(UNCALIBRATED))
    found = one.held_out()
    if found is None:
        return section(heading, paragraph("It cannot be checked here: the images with a face are all of one class."))
    made, figures = one.calibration, figures_of(found)
    fakes, reals = int(found.labels.sum()), int((found.labels == 0).sum())
    notes = [f"Made from {made.about_corpus}; tested here on {fakes} forged and {reals} real images."]
    if (made.counts["fake"], made.counts["real"]) == (fakes, reals):
        notes.append(
            "These are as many images as it was made from. If they are the same, the plots and the first column are "
            "better than on other images; the second column is not."
        )
    rows = [
        [text, f"{figures[key]:.4f}", f"{made.held_out[key]:.4f}"]
        for key, text in _HELD_OUT.items()
        if key in made.held_out
    ]
    caption = "How good the likelihood ratios are"
    description = (
        f"Reliability diagram and Tippett plot of {one.name} on {fakes} forged and {reals} real images: Cllr "
        f"{figures['cllr']:.4f}, expected calibration error {figures['ece']:.4f}."
    )
    return section(
        heading,
        *map(paragraph, notes),
        table(["figure", "on these images", "held out when it was made"], rows, caption=caption),
        png_figure(calibration_png(found, title=one.name), description=description),
    )


def _robustness(robustness: tuple[RobustnessReport, str] | None) -> str:
    if robustness is None:
        return ""
    report, about = robustness
    line = summary_line(report)
    drawn = png_figure(robustness_figure(report, title=about), description=f"Figures under corruptions: {line}.")
    return section("Robustness", paragraph(f"{about}: {line}."), drawn, name="robustness")
