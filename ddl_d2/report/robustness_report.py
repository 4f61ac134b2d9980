"""What a robustness run found, as figures, tables, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from ddl_d2.data.transforms.corruptions import CORRUPTIONS, DELIVERIES, TEST_ONLY
from ddl_d2.errors import InputError
from ddl_d2.evaluation.functional.calibration import expected_calibration_error
from ddl_d2.evaluation.functional.intervals import auc_interval
from ddl_d2.evaluation.results import ResultTable
from ddl_d2.predictions.verdict import INCONCLUSIVE, NO_FACE, says_forged
from ddl_d2.report.robustness import AS_IT_IS, Condition, Found

SHOWN = {
    "auc": "AUC",
    "f1": "F1 of the forged pixels (M1)",
    "iou": "IoU of the forged pixels (M1)",
    "false_alarms": "share of real images called fake",
    "found": "share of fakes called fake",
    "ece": "expected calibration error",
    "flips": "share of images whose verdict is another than as they are",
}
"""The figures that tables and summary show, and what they are."""

FIGURES = (*SHOWN, "auc_low", "auc_high", "ece_drift", "inconclusive", "no_face", "num_fake", "num_real")
"""All figures of a condition, in the order of the CSV's columns."""

Figures = dict[str, float]


class RobustnessReport(NamedTuple):
    """The figures of a run.

    Attributes:
        figures: of each condition; the first is the images as they are.
        means: of each of `SHOWN`, the mean over corruptions of its mean over levels.
        fragile: the share of images whose verdict flips under any of the twelve deliveries of `ddl-d2 predict
            --fragility`; NaN if the run did not have all of them.
    """

    figures: dict[Condition, Figures]
    means: Figures
    fragile: float

    @property
    def robust_auc(self) -> float:
        """The one number: mean AUC under corruption, each corruption weighing the same."""
        return self.means["auc"]

    @property
    def hardest(self) -> Condition:
        """The condition with the lowest AUC (the first of equals; of F1 where there is no AUC)."""
        key = "f1" if math.isnan(self.robust_auc) else "auc"
        known = [name for name, values in self.figures.items() if not math.isnan(values[key])]
        return min(known or list(self.figures), key=lambda name: self.figures[name][key])


def make_report(found: Mapping[Condition, Sequence[Found]]) -> RobustnessReport:
    """Compute the figures of all conditions.

    Args:
        found: of each condition, all images; the images as they are first.
    """
    figures = {name: _figures(images) for name, images in found.items()}
    plain, as_they_are = next(iter(figures.values())), next(iter(found.values()))
    flipped = {name: _flipped(as_they_are, images) for name, images in found.items()}
    for name, values in figures.items():
        values["ece_drift"] = values["ece"] - plain["ece"]
        values["flips"] = _share(flipped[name])
    deliveries = [flipped.get(Condition(one.corruption, one.level)) for one in DELIVERIES]
    known = [one for one in deliveries if one is not None]
    fragile = _share(np.any(known, axis=0)) if len(known) == len(deliveries) else math.nan
    return RobustnessReport(figures, {key: _mean_of_means(figures, key) for key in SHOWN}, fragile)


def _flipped(before: Sequence[Found], after: Sequence[Found]) -> np.ndarray:
    """Whether each image has another verdict; one without a face, before or after, has none that could flip."""
    pairs = zip(before, after, strict=True)
    return np.array([NO_FACE not in (old.verdict, new.verdict) and old.verdict != new.verdict for old, new in pairs])


def _figures(found: Sequence[Found]) -> Figures:
    metrics = ResultTable(one.result for one in found).metrics()
    labels = np.array([one.result.is_fake for one in found])
    scores = np.array([one.result.score for one in found])
    called = np.array([says_forged(one.verdict) for one in found])
    faced = np.array([one.result.has_face for one in found])
    values = dict.fromkeys(FIGURES, math.nan)
    values |= {key: metrics[key] for key in ("auc", "f1", "iou", "num_fake", "num_real")}
    if not math.isnan(metrics["auc"]):
        _, values["auc_low"], values["auc_high"] = auc_interval(labels, scores)
    values["false_alarms"], values["found"] = _share(called[labels == 0]), _share(called[labels == 1])
    values["ece"] = expected_calibration_error(labels[faced], scores[faced])
    values["inconclusive"] = _share([one.verdict == INCONCLUSIVE for one in found])
    values["no_face"] = _share(~faced)
    return values


def _share(chosen: Iterable[bool] | np.ndarray) -> float:
    values = np.asarray(chosen, dtype=np.float64)
    return float(values.mean()) if values.size else math.nan


def _mean_of_means(figures: Mapping[Condition, Figures], key: str) -> float:
    by_name: dict[str, list[float]] = {}
    for (name, _), values in figures.items():
        if name != AS_IT_IS:
            by_name.setdefault(name, []).append(values[key])
    return float(np.mean([np.mean(values) for values in by_name.values()])) if by_name else math.nan


def summary_line(report: RobustnessReport) -> str:
    """The one number in a sentence."""
    plain, hardest = next(iter(report.figures.values())), report.hardest
    what = "the images as they are"
    if hardest.corruption != AS_IT_IS:
        what = CORRUPTIONS[hardest.corruption].says(hardest.level)
    return (
        f"mean AUC under corruption {_cell(report.robust_auc)} (as they are {_cell(plain['auc'])}); "
        f"hardest: {what}, {_cell(report.figures[hardest]['auc'])}; verdicts that flip under any of "
        f"{len(DELIVERIES)} deliveries: {_cell(report.fragile)}"
    )


def report_text(report: RobustnessReport, style: str = "simple") -> str:
    """Format a report as tables, one for each of `SHOWN`: a corruption a row, a level a column.

    Args:
        report: the report.
        style: of `tabulate`: "simple" for a terminal, "github" for Markdown.
    """
    levels = sorted({level for name, level in report.figures if name != AS_IT_IS})
    names = list(dict.fromkeys(name for name, _ in report.figures if name != AS_IT_IS))
    parts = [summary_line(report)]
    for key, title in SHOWN.items():
        rows = []
        for name in names:
            values = [report.figures[Condition(name, level)][key] for level in levels]
            mark = " *" if name in TEST_ONLY else ""
            rows.append([name + mark, *map(_cell, values), _cell(float(np.mean(values)))])
        plain = _cell(next(iter(report.figures.values()))[key])
        body = tabulate(
            rows,
            headers=["corruption", *(f"level {level}" for level in levels), "mean"],
            tablefmt=style,
            colalign=["left", *["right"] * (len(levels) + 1)],
            disable_numparse=True,
        )
        parts.append(f"{title}: {plain} as they are, {_cell(report.means[key])} corrupted\n\n{body}")
    parts.append("* never among the corruptions that training uses")
    return "\n\n".join(parts) + "\n"


def report_csv(report: RobustnessReport) -> str:
    """Format a report as CSV, a line for each condition; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["corruption", "level", "strength", *FIGURES])
    for (name, level), values in report.figures.items():
        strength = "" if name == AS_IT_IS else CORRUPTIONS[name].strength(level)
        cells = ["" if math.isnan(values[key]) else values[key] for key in FIGURES]
        writer.writerow([name, level, strength, *cells])
    return text.getvalue()


def report_json(report: RobustnessReport, settings: Mapping[str, Any]) -> str:
    """Format a report as JSON, NaN as null, with the settings that it was made with."""
    content = {
        **settings,
        "summary": summary_line(report),
        "robust_auc": _known(report.robust_auc),
        "hardest": str(report.hardest),
        "fragile": _known(report.fragile),
        "means": {key: _known(value) for key, value in report.means.items()},
        "test_only": sorted(TEST_ONLY),
        "conditions": {
            str(name): {key: _known(value) for key, value in values.items()} for name, values in report.figures.items()
        },
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def read_report(path: Path) -> tuple[RobustnessReport, str]:
    """Read what `report_json` has written.

    Returns:
        the report, and what was measured on what, in words.

    Raises:
        InputError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = {Condition.parse(name): _numbers(values) for name, values in content["conditions"].items()}
        report = RobustnessReport(figures, _numbers(content["means"]), _number(content["fragile"]))
        split = f"/{content['split']}" if content["split"] else ""
        about = f"{Path(content['weights']).stem} on {content['dataset']}{split}, {content['num_images']} images"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the robustness.json of `ddl-d2 robustness` ({error!r})") from error
    return report, about


def _numbers(values: Mapping[str, float | None]) -> Figures:
    return {key: _number(value) for key, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _cell(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
