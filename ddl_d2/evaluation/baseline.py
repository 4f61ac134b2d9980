"""Baselines: what systems gave image by image, small enough to ship, from which published figures are derived again.

A baseline holds scores and pixel counts: no image, no map, no name of a file. It is one JSON file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddl_d2.errors import EvaluationError, InputError
from ddl_d2.evaluation.results import ImageResult, ResultTable

FORMAT = "ddl_d2 baseline 1"
PUBLISHED = ("auc", "f1", "iou", "pooled_f1", "pooled_iou", "accuracy", "num_fake", "num_real")
"""The metrics that a baseline states."""

_COLUMNS = ("is_fake", "score", "tp", "fp", "fn", "tn", "has_mask", "height", "width", "has_face")
_FOLDER = Path(__file__).resolve().parent / "baselines"


@dataclass(frozen=True)
class Baseline:
    """What one system gave on one dataset.

    Attributes:
        name: of the file.
        about: JSON values that say whence it came: dataset, weights, their sha256, command.
        published: metrics that were stated for it, by name.
        table: what it gave for each image, under neutral names.
    """

    name: str
    about: Mapping[str, Any]
    published: Mapping[str, float]
    table: ResultTable

    def differences(self, metrics: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Of metrics that are not as published, by more than 1e-9: (published, derived)."""
        return {
            key: (value, metrics[key])
            for key, value in self.published.items()
            if not math.isclose(value, metrics[key], rel_tol=0, abs_tol=1e-9)
        }


def list_baselines() -> list[str]:
    """Return the names of the baselines that come with ddl_d2, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_baseline(name: str) -> Baseline:
    """Read a baseline.

    Args:
        name: one of `list_baselines`, or a file.

    Raises:
        InputError: there is none of this name, or the file is none.
    """
    path = _FOLDER / f"{name}.json" if name in list_baselines() else Path(name)
    if not path.is_file():
        raise InputError(f"{name}: no such file, and no baseline of that name ({', '.join(list_baselines())})")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or tuple(content["columns"]) != _COLUMNS:
            raise InputError(f"{path}: not a baseline of this version ({FORMAT})")
        table = ResultTable(_result(number, *values) for number, values in enumerate(content["rows"]))
        return Baseline(path.stem, content["about"], content["metrics"], table)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a baseline ({type(error).__name__}: {error})") from error


def baseline_text(rows: Iterable[ImageResult], about: Mapping[str, Any], *, threshold: float = 0.5) -> str:
    """Make the content of a baseline file; images are renamed to their number in the order of their ids.

    Args:
        rows: of one evaluation, with labels and scores, no frames of videos.
        about: JSON values that say whence it came.
        threshold: as in `ResultTable.metrics`.

    Raises:
        EvaluationError: rows without a label or score, or frames.
    """
    distinct = ResultTable(rows).distinct()
    if any(row.score is None or row.is_fake is None or row.video_id is not None for row in distinct):
        raise EvaluationError("a baseline is made of images with labels and scores that are no frames of videos")
    lines = [
        [row.is_fake, row.score, *(row.counts or [None] * 4), row.has_mask, row.height, row.width, row.has_face]
        for row in distinct
    ]
    table = ResultTable(_result(number, *values) for number, values in enumerate(lines))
    metrics = table.metrics(threshold=threshold)
    stated = {key: metrics[key] for key in PUBLISHED if not math.isnan(metrics[key])}
    head = {"format": FORMAT, "about": {**about, "threshold": threshold}, "metrics": stated, "columns": _COLUMNS}
    text = json.dumps(head, indent=1, allow_nan=False)
    listed = ",\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    return f'{text.removesuffix("}").rstrip()},\n "rows": [\n{listed}\n]}}\n'


def _result(number: int, is_fake: int, score: float, *values: Any) -> ImageResult:
    *counts, has_mask, height, width, has_face = values
    known = None if None in counts else (int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3]))
    return ImageResult(f"{number:06d}", is_fake, score, known, has_mask, height, width, has_face=has_face)
