"""Scoring answers of the DDL-X challenge, as far as a machine can: class, boxes, and standards of form.

The challenge's score of a fake is 0.2 x accuracy + 0.5 x IoU, and for IoU of at least 0.7 also 0.1 x the likeness of
the text to a reference and 0.2 x a rubric; of a real image 0.2 x accuracy and 0.8 x likeness and rubric. Likeness and
rubric need a language model and reference texts, which are not at hand: `score` here is the rest, at most 0.7 and 0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import EvaluationError, SubmissionError
from ddl_d2.evaluation.errors import listed
from ddl_d2.io.rows import read_row_size
from ddl_d2.predictions.ddl_x import SCALE, Box, make_answer, read_answer
from ddl_d2.predictions.regions import forged_regions

_ACCURACY, _IOU = 0.2, 0.5


def box_iou(first: Iterable[Box], second: Iterable[Box]) -> float:
    """Compute the intersection over union of what two lists of boxes cover, on the scale of 0 to 1000.

    Where boxes of one list overlap, they count once. 1 if both lists are empty.
    """
    ours, theirs = _covered(first), _covered(second)
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0


def evaluate_answers(folder: str | Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Score a folder of answers against a labeled dataset.

    Args:
        folder: with a JSON file for each image, named by the image's name without its ending.
        rows: dataset dicts. The true boxes are those of the forgery mask's 8-connected regions of 16 pixels or more.

    Returns:
        accuracy; box_iou, the mean over fakes with a mask (0 for one called real); score, see the module; the shares of
        answers without a fault of form, `well_formed`, and with neither a fault nor a wrong class, `flawless`; and
        num_images, num_fake, num_with_boxes.

    Raises:
        EvaluationError: an answer is missing, two images share a name, or no image has a label.
        SubmissionError: an answer breaks the format.
        ImageReadError: an image or mask cannot be read.
    """
    labeled = [row for row in rows if row.get("is_fake") in (0, 1)]
    files = {row["image_id"]: Path(folder) / f"{Path(row['image_id']).stem}.json" for row in labeled}
    _check_there(files)
    right, formed, flawless, scores, ious = 0, 0, 0, [], []
    for row in labeled:
        answer = read_answer(files[row["image_id"]])
        correct, faults = answer.is_fake == bool(row["is_fake"]), answer.faults()
        right, formed, flawless = right + correct, formed + (not faults), flawless + (correct and not faults)
        score = _ACCURACY * correct
        if (truth := _true_boxes(row)) is not None:
            ious.append(box_iou(answer.boxes, truth))
            score += _IOU * ious[-1]
        scores.append(score)
    total = len(labeled)
    return {
        "accuracy": right / total,
        "box_iou": float(np.mean(ious)) if ious else float("nan"),
        "score": float(np.mean(scores)),
        "well_formed": formed / total,
        "flawless": flawless / total,
        "num_images": total,
        "num_fake": sum(int(row["is_fake"]) for row in labeled),
        "num_with_boxes": len(ious),
    }


def validate_answers(folder: str | Path) -> dict[str, list[str]]:
    """Find what is wrong with the answers of a folder: of each file with a fault, what it is.

    Raises:
        SubmissionError: the folder holds no answer.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise SubmissionError(f"{folder}: holds no .json file, so no answer")
    found = {}
    for path in files:
        try:
            faults = read_answer(path).faults()
        except SubmissionError as error:
            faults = [str(error).removeprefix(f"{path}: ")]
        if faults:
            found[path.name] = faults
    return found


def _check_there(files: Mapping[str, Path]) -> None:
    if not files:
        raise EvaluationError("no image has a label, so there is nothing to score")
    names: dict[Path, str] = {}
    for image_id, path in files.items():
        if names.setdefault(path, image_id) != image_id:
            raise EvaluationError(f"{names[path]} and {image_id} would share the answer {path.name}")
    if missing := [image_id for image_id, path in files.items() if not path.is_file()]:
        raise EvaluationError(f"{len(missing)} of {len(files)} images have no answer: {listed(missing)}")


def _true_boxes(row: Mapping[str, Any]) -> tuple[Box, ...] | None:
    """The boxes of a fake's mask; None of a real image, or where the mask is not known or empty."""
    if row["is_fake"] != 1:
        return None
    height, width = read_row_size(row)
    truth = read_forgery_mask(row, height, width)
    if truth is None or not truth.mask.any():
        return None
    regions = forged_regions(truth.mask.astype(np.float32), truth.mask)
    return make_answer(True, [region.box for region in regions], height=height, width=width, traces="").boxes


def _covered(boxes: Iterable[Box]) -> NDArray[np.bool_]:
    plane = np.zeros((SCALE + 1, SCALE + 1), bool)
    for x1, y1, x2, y2 in boxes:
        plane[y1 : y2 + 1, x1 : x2 + 1] = True
    return plane
