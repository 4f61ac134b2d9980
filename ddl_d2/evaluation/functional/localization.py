"""Pixel-level metrics of a forgery map against a forgery mask.

Legend: N images, H x W pixels of one image. *Counts* are (TP, FP, FN, TN) pixel numbers of one image, forged being
the positive class; everything below is computed from an (N, 4) integer table of them, so a mask is seen only once.
M1 to M5 are the protocols of docs/metrics.md.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddl_d2.evaluation.functional.detection import UndefinedMetricWarning

EMPTY_SCORES = ("skip", "0", "1")
"""What a fake image with an empty forgery mask scores in M1 (see `localization_metrics`)."""


def pixel_counts(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Count true and false positives, false and true negatives (TP, FP, FN, TN) among the pixels of two masks.

    Args:
        prediction: bool H x W, True = forged.
        target: likewise.

    Raises:
        ValueError: another type, or unlike shapes.
    """
    if prediction.dtype != np.bool_ or target.dtype != np.bool_:
        raise ValueError(f"masks must be bool, got {prediction.dtype} and {target.dtype}: threshold them first")
    if prediction.shape != target.shape:
        raise ValueError(f"the prediction is {prediction.shape}, the target {target.shape}: sizes must be equal")
    if not prediction.size:
        return 0, 0, 0, 0
    # OpenCV counts bytes in half of NumPy's time, and the pixels that differ (their L1 distance) without a third mask.
    found, truth = prediction.ravel().view(np.uint8), target.ravel().view(np.uint8)
    positives, forged, unlike = (
        cv2.countNonZero(found),
        cv2.countNonZero(truth),
        int(cv2.norm(found, truth, cv2.NORM_L1)),
    )
    true_positive = (positives + forged - unlike) // 2
    false_positive, false_negative = positives - true_positive, forged - true_positive
    return (
        true_positive,
        false_positive,
        false_negative,
        prediction.size - true_positive - false_positive - false_negative,
    )


def f1_iou_per_image(counts: ArrayLike, empty: float = math.nan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 = 2TP / (2TP + FP + FN) and IoU = TP / (TP + FP + FN) of each image.

    Args:
        counts: (N, 4) TP, FP, FN, TN.
        empty: the value of an image with neither a forged nor a predicted pixel.

    Returns:
        Two (N,) float arrays in [0, 1].
    """
    true_positive, false_positive, false_negative, _ = _count_columns(counts)
    return (
        _ratios(2 * true_positive, 2 * true_positive + false_positive + false_negative, empty),
        _ratios(true_positive, true_positive + false_positive + false_negative, empty),
    )


def double_f1_per_image(counts: ArrayLike, empty: float = math.nan) -> NDArray[np.float64]:
    """M5: the larger of F1(prediction) and F1(inverted prediction) of each image. Not used by default.

    It forgives a map of inverted polarity, which no user of a detector would.

    Args:
        counts: (N, 4) TP, FP, FN, TN.
        empty: the value of either F1 with neither a forged nor a predicted pixel.

    Returns:
        (N,) floats in [0, 1]; NaN only where both are undefined.
    """
    columns = _count_columns(counts)
    inverted = np.stack([columns[2], columns[3], columns[0], columns[1]], axis=1)
    return np.fmax(f1_iou_per_image(counts, empty)[0], f1_iou_per_image(inverted, empty)[0])


class LocalizedImages(NamedTuple):
    """Which images take part in which metric of localization.

    Attributes:
        localized: (N,) bool, those of M1 to M3.
        known: (N,) bool, those of M4.
        empty_mask: (N,) bool, the fakes whose forgery mask is empty.
        empty: what such a fake scores in M1 if nothing was predicted; NaN if it is left out.
    """

    localized: NDArray[np.bool_]
    known: NDArray[np.bool_]
    empty_mask: NDArray[np.bool_]
    empty: float


def localized_images(
    counts: ArrayLike, is_fake: ArrayLike, *, has_mask: ArrayLike | None = None, empty_score: str = "skip"
) -> LocalizedImages:
    """Choose the images that M1 to M4 are about; arguments and errors are those of `localization_metrics`."""
    if empty_score not in EMPTY_SCORES:
        raise ValueError(f"empty_score is one of {', '.join(EMPTY_SCORES)}, not {empty_score!r}")
    table = np.stack(_count_columns(counts), axis=1)
    fake = np.asarray(is_fake).astype(bool)
    known = np.ones(len(table), bool) if has_mask is None else np.asarray(has_mask).astype(bool)
    if not fake.shape == known.shape == (len(table),):
        raise ValueError(f"{len(table)} rows of counts, {fake.shape} labels, {known.shape} mask flags: must be equal")
    empty_mask = fake & known & (table[:, 0] + table[:, 2] == 0)
    localized = fake & known & ~(empty_mask & (empty_score == "skip"))
    return LocalizedImages(localized, known, empty_mask, math.nan if empty_score == "skip" else float(empty_score))


def localization_metrics(
    counts: ArrayLike, is_fake: ArrayLike, *, has_mask: ArrayLike | None = None, empty_score: str = "skip"
) -> dict[str, float]:
    """Compute the metrics M1 to M4 of one table of pixel counts.

    Args:
        counts: (N, 4) non-negative integers TP, FP, FN, TN per image at its original size.
        is_fake: (N,) 0 or 1.
        has_mask: (N,) whether the counts of the image mean anything; default all. False for a fake whose ground
            truth is unknown: such an image takes no part in any number below.
        empty_score: a fake with an empty forgery mask is left out of M1 to M3 with "skip"; with "0" or "1" it takes
            part, and scores that number in M1 if nothing was predicted and 0 otherwise. It is always part of M4.

    Returns:
        `f1`, `iou`: M1, mean over fake images; `pooled_f1`, `pooled_iou`: M2, pixels of all fakes pooled; `miou`: M3,
        mean IoU of the forged and the authentic class, pooled over fakes; `all_f1`, `all_iou`: M4, as M2 over all
        images; `num_localized`: images averaged by M1; `num_empty_masks`: fakes with an empty mask; `num_skipped`:
        fakes not in M1. Numbers without anything to count are NaN, with an `UndefinedMetricWarning` for M1.

    Raises:
        ValueError: a wrong shape, a negative count or an unknown `empty_score`.
    """
    table = np.stack(_count_columns(counts), axis=1)
    chosen = localized_images(table, is_fake, has_mask=has_mask, empty_score=empty_score)
    localized, known, empty = chosen.localized, chosen.known, chosen.empty
    f1, iou = f1_iou_per_image(table[localized], empty)
    if not localized.any():
        message = "localization metrics are undefined: no fake image has a forgery mask to compare with"
        warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
    pooled = table[localized].sum(axis=0, keepdims=True)
    overall = table[known].sum(axis=0, keepdims=True)
    of_pools = pooled_metrics(pooled, overall, empty if localized.any() else math.nan)
    return {
        "f1": _mean(f1),
        "iou": _mean(iou),
        **{key: float(values[0]) for key, values in of_pools.items()},
        "num_localized": int(localized.sum()),
        "num_empty_masks": int(chosen.empty_mask.sum()),
        "num_skipped": int(np.asarray(is_fake).astype(bool).sum() - localized.sum()),
    }


def pooled_metrics(pooled: ArrayLike, overall: ArrayLike, empty: float = math.nan) -> dict[str, NDArray[np.float64]]:
    """Compute the metrics M2 to M4 of K sets of images from the sums of their pixel counts.

    Args:
        pooled: (K, 4) TP, FP, FN, TN of the fakes that take part in M1 to M3.
        overall: (K, 4) of all images whose truth is known.
        empty: F1 and IoU of a set with neither a forged nor a predicted pixel.

    Returns:
        `pooled_f1`, `pooled_iou`, `miou`, `all_f1`, `all_iou` as in `localization_metrics`, (K,) each.

    Raises:
        ValueError: a wrong shape or a negative count.
    """
    pooled_f1, pooled_iou = f1_iou_per_image(pooled, empty)
    all_f1, all_iou = f1_iou_per_image(overall, empty)
    # Exchanging the classes exchanges TP with TN and FP with FN.
    forged, authentic = f1_iou_per_image(pooled)[1], f1_iou_per_image(np.asarray(pooled)[:, ::-1])[1]
    miou = np.where(np.isnan(forged), authentic, np.where(np.isnan(authentic), forged, (forged + authentic) / 2))
    return {"pooled_f1": pooled_f1, "pooled_iou": pooled_iou, "miou": miou, "all_f1": all_f1, "all_iou": all_iou}


def final_score(auc: float, f1: float, iou: float) -> float:
    """Score of the DDL challenge's image track: (AUC + F1 + IoU) / 3, each in [0, 1]; NaN if one of them is."""
    return (auc + f1 + iou) / 3


def _count_columns(counts: ArrayLike) -> tuple[NDArray[np.int64], ...]:
    """Return TP, FP, FN, TN as four int64 (N,) arrays. Raises ValueError."""
    table = np.asarray(counts)
    if table.ndim != 2 or table.shape[1] != 4 or not (table.size == 0 or np.issubdtype(table.dtype, np.integer)):
        raise ValueError(f"counts must be an (N, 4) integer table, got {table.dtype} {table.shape}")
    if table.size and table.min() < 0:
        raise ValueError(f"counts must not be negative: row {int(np.argmax((table < 0).any(axis=1)))}")
    return tuple(table.astype(np.int64).T)


def _ratios(numerator: NDArray[np.int64], denominator: NDArray[np.int64], empty: float) -> NDArray[np.float64]:
    result = np.full(numerator.shape, empty, dtype=np.float64)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean(values: NDArray[np.float64]) -> float:
    """Divide the correctly rounded sum by N: the same mean for every order of the images; NaN for none."""
    return math.fsum(values) / len(values) if len(values) else math.nan
