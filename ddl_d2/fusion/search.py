"""Weights of an ensemble, searched on one labeled set and reported on another.

Legend: S systems, N images, W candidate weights. A candidate is a tuple of S whole numbers without a common divisor:
(2, 5) is 1 : 2.5. AUC depends on the weights of the scores alone, F1 and IoU (M1 of docs/metrics.md) on those of the
maps alone, so the two are searched apart, and the best of each together have the best challenge score
(AUC + F1 + IoU) / 3 if maps are judged by F1 + IoU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import FusionError
from ddl_d2.evaluation.functional import f1_iou_per_image, final_score, pixel_counts, roc_auc
from ddl_d2.fusion.ensemble import average_scores, exceeds_on_average
from ddl_d2.fusion.stores import read_maps
from ddl_d2.fusion.truth import LabeledPredictions, Row, check_disjoint
from ddl_d2.io.rows import read_row_size
from ddl_d2.utils.threads import in_order

MAP_METRICS = ("f1", "iou", "final")
"""What the weights of the maps can be searched for; "final" is the challenge's score, here F1 + IoU."""

MAX_CANDIDATES = 10_000

Weights = tuple[int, ...]


class Localization(NamedTuple):
    """M1 of W candidates.

    Attributes:
        f1: (W,) in [0, 1], NaN without a fake that has a forgery mask.
        iou: likewise.
        num_localized: the number of fakes that were averaged.
    """

    f1: NDArray[np.float64]
    iou: NDArray[np.float64]
    num_localized: int


@dataclass(frozen=True)
class SearchResult:
    """What was tried and what was best.

    Attributes:
        grid: the W candidates.
        auc: (W,) in [0, 1], of each candidate as weights of the scores.
        localization: of each candidate as weights of the maps; None if there are no maps or no forgery masks.
        weights: the best for scores.
        map_weights: the best for maps; None as `localization`.
    """

    grid: list[Weights]
    auc: NDArray[np.float64]
    localization: Localization | None
    weights: Weights
    map_weights: Weights | None


def weight_grid(systems: int, step: float = 0.05) -> list[Weights]:
    """List all S-tuples of non-negative multiples of `step` that sum to 1, as whole numbers without a common divisor.

    Raises:
        FusionError: fewer than two systems, a step that does not divide 1, or more than `MAX_CANDIDATES` tuples.
    """
    if systems < 2:
        raise FusionError("a search takes at least two systems")
    parts = round(1 / step) if step > 0 else 0
    if parts < 1 or abs(parts * step - 1) > 1e-9:
        raise FusionError(f"the step of the weights must be 1 divided by a whole number, such as 0.05, not {step:g}")
    count = math.comb(parts + systems - 1, systems - 1)
    if count > MAX_CANDIDATES:
        raise FusionError(f"a step of {step:g} makes {count} candidates for {systems} systems: take a larger one")
    grid = []
    # Parts and the bars between them in a row: where the bars stand says how many parts each system has.
    for bars in combinations(range(parts + systems - 1), systems - 1):
        ends = (-1, *bars, parts + systems - 1)
        counts = [right - left - 1 for left, right in pairwise(ends)]
        divisor = math.gcd(*counts)
        grid.append(tuple(part // divisor for part in counts))
    return grid


def search_weights(
    predictions: LabeledPredictions,
    *,
    step: float = 0.05,
    map_metric: str = "final",
    threshold: float = 0.5,
    workers: int = 1,
) -> SearchResult:
    """Try every weight of `weight_grid` on one labeled set.

    Of equally good candidates the one nearest to equal weights is taken. Each map and forgery mask is read once,
    whatever the number of candidates, and one image is held per thread.

    Args:
        predictions: of the set to search on. Its figures are too good for every other set: see `report_weights`.
        step: of the grid.
        map_metric: "f1", "iou" or "final".
        threshold: a pixel is forged above it.
        workers: threads that read maps; they change no number.

    Raises:
        FusionError: another metric, step or size of map than is allowed.
        DdlError: a map or a forgery mask cannot be read.
    """
    if map_metric not in MAP_METRICS:
        raise FusionError(f"the metric of the maps is one of {', '.join(MAP_METRICS)}, not {map_metric!r}")
    grid = weight_grid(len(predictions.systems.stores), step)
    auc = ranking(predictions, grid)
    found = None
    if all(store.has_maps for store in predictions.systems.stores):
        found = localization(predictions, grid, threshold=threshold, workers=workers)
    if found is None or not found.num_localized:
        return SearchResult(grid, auc, None, _best(grid, auc), None)
    value = {"f1": found.f1, "iou": found.iou, "final": found.f1 + found.iou}[map_metric]
    return SearchResult(grid, auc, found, _best(grid, auc), _best(grid, value))


def report_weights(
    result: SearchResult,
    searched_on: LabeledPredictions,
    predictions: LabeledPredictions,
    *,
    threshold: float = 0.5,
    workers: int = 1,
) -> dict[str, dict[str, float]]:
    """Measure the found weights on images they were not searched on, beside each system and equal weights.

    Args:
        result: of `search_weights`.
        searched_on: the set it came from.
        predictions: the same systems, in the same order, on another set.
        threshold: a pixel is forged above it.
        workers: threads that read maps; they change no number.

    Returns:
        `{"1": ..., "2": ..., "equal": ..., "searched": ...}`, each with `auc`, `f1`, `iou` and `final` in [0, 1]; the
        last three NaN where maps were not searched.

    Raises:
        FusionError: the two sets share an image, or do not have the same systems.
    """
    systems = len(predictions.systems.stores)
    if systems != len(searched_on.systems.stores):
        raise FusionError(f"weights were searched for {len(searched_on.systems.stores)} systems, not {systems}")
    check_disjoint(searched_on, predictions)
    plain: dict[str, Weights] = {
        str(index + 1): tuple(int(index == other) for other in range(systems)) for index in range(systems)
    }
    plain["equal"] = (1,) * systems
    auc = ranking(predictions, [*plain.values(), result.weights])
    f1 = iou = np.full(len(auc), math.nan)
    if result.map_weights is not None:
        candidates = [*plain.values(), result.map_weights]
        f1, iou, _ = localization(predictions, candidates, threshold=threshold, workers=workers)
    rows = zip((*plain, "searched"), auc.tolist(), f1.tolist(), iou.tolist(), strict=True)
    return {name: {"auc": a, "f1": f, "iou": i, "final": final_score(a, f, i)} for name, a, f, i in rows}


def ranking(predictions: LabeledPredictions, candidates: Sequence[Weights]) -> NDArray[np.float64]:
    """Compute the AUC, (W,) in [0, 1], of scores averaged by each candidate."""
    labels = predictions.labels
    return np.array([roc_auc(labels, average_scores(predictions.scores, weights)) for weights in candidates])


def localization(
    predictions: LabeledPredictions, candidates: Sequence[Weights], *, threshold: float = 0.5, workers: int = 1
) -> Localization:
    """Compute M1 of the averaged maps, at the original size, over the fakes with a known forgery mask, not empty.

    Equal, to rounding in the sum, to evaluating each stored average.

    Args:
        predictions: of systems with maps.
        candidates: weights to try.
        threshold: a pixel is forged above it.
        workers: threads that read maps; they change no number.

    Raises:
        FusionError: maps are missing or have another size than their image.
        DdlError: a map or a forgery mask cannot be read.
    """
    if without := [str(store.root) for store in predictions.systems.stores if not store.has_maps]:
        raise FusionError(f"no forgery maps in {', '.join(without)}")
    count = partial(_counts_of, predictions, candidates, threshold)
    f1, iou, number = np.zeros(len(candidates)), np.zeros(len(candidates)), 0
    for counts in in_order(count, predictions.fakes(), workers):
        if counts is not None:
            one_f1, one_iou = f1_iou_per_image(counts)
            f1, iou, number = f1 + one_f1, iou + one_iou, number + 1
    if not number:
        return Localization(np.full(len(candidates), math.nan), np.full(len(candidates), math.nan), 0)
    return Localization(f1 / number, iou / number, number)


def _counts_of(
    predictions: LabeledPredictions, candidates: Sequence[Weights], threshold: float, row: Row
) -> NDArray[np.int64] | None:
    """Count TP, FP, FN, TN, (W, 4), of one fake's averaged maps; None if its forgery mask is unknown or empty."""
    limit = predictions.systems.max_pixels
    height, width = read_row_size(row, max_pixels=limit)
    truth = read_forgery_mask(row, height, width, max_pixels=limit)
    if truth is None or not truth.mask.any():
        return None
    maps, _ = read_maps(predictions.systems.stores, row["image_id"])
    if maps[0].shape != (height, width):
        raise FusionError(f"{row['image_id']}: the forgery map is {maps[0].shape}, the image {(height, width)}")
    counts = [pixel_counts(exceeds_on_average(maps, weights, threshold), truth.mask) for weights in candidates]
    return np.array(counts, np.int64)


def _best(grid: Sequence[Weights], values: NDArray[np.float64]) -> Weights:
    """Return the candidate of the highest value (equal to 12 digits: nearest to equal weights, then the first)."""

    def rank(index: int) -> tuple[float, float, Weights]:
        shares = np.array(grid[index]) / sum(grid[index])
        return -round(float(values[index]), 12), round(float(np.square(shares).sum()), 12), grid[index]

    return grid[min(range(len(grid)), key=rank)]
