"""Image-level metrics of a real/fake score.

Legend: N images. Every function takes `labels` (N,) of 0 (real) or 1 (fake), of any integer or bool type, and `scores`
(N,) of finite floats where higher means more likely fake; only `accuracy` needs them to be probabilities. The N items
may as well be the pixels of one map; a map as it is stored (uint8 or uint16) is measured fastest.

All raise ValueError for shapes that differ, for a label other than 0 or 1 and for a score that is NaN or infinite; the
message names the index. A metric that needs both classes is NaN, with an `UndefinedMetricWarning`, when one is missing.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class UndefinedMetricWarning(UserWarning):
    """A metric has no value on this data (one class only, or nothing to count) and NaN was returned."""


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a fake > score of a real) + 1/2 P(equal).

    Exact, ties by midranks: counted in integers after one sort, the result is the correctly rounded quotient and does
    not depend on the order of the images.

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) finite, higher is more likely fake.

    Returns:
        A float in [0, 1], or NaN.
    """
    labels, scores = _validated(labels, scores)
    num_fake = int(np.count_nonzero(labels))
    num_real = labels.size - num_fake
    if not _both_classes("ROC AUC", num_fake, num_real):
        return float("nan")
    keys = _sorted_keys(labels, scores)
    # The j-th fake at sorted position p has p - j reals at or below it: among equal scores reals come first.
    at_or_below = _sum_of_fake_positions(keys, num_fake) - num_fake * (num_fake - 1) // 2
    return (2 * at_or_below - _tied_pairs(keys)) / (2 * num_fake * num_real)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: sum over distinct thresholds of (R_k - R_{k-1}) P_k, without interpolation (scikit-learn's).

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) finite, higher is more likely fake.

    Returns:
        A float in [0, 1], or NaN.
    """
    labels, scores = _validated(labels, scores)
    num_fake = int(np.count_nonzero(labels))
    if not _both_classes("average precision", num_fake, labels.size - num_fake):
        return float("nan")
    true_positives, false_positives = _cumulative_counts(labels, scores)
    precision = true_positives / (true_positives + false_positives)
    gained = np.diff(true_positives, prepend=0)
    return float(np.sum(gained * precision)) / num_fake


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float:
    """Equal error rate: where the ROC polyline has false positive rate = false negative rate.

    Between two thresholds the polyline is interpolated linearly, so a constant score gives 0.5.

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) finite, higher is more likely fake.

    Returns:
        A float in [0, 1], or NaN.
    """
    labels, scores = _validated(labels, scores)
    num_fake = int(np.count_nonzero(labels))
    num_real = labels.size - num_fake
    if not _both_classes("equal error rate", num_fake, num_real):
        return float("nan")
    true_positives, false_positives = _cumulative_counts(labels, scores)
    recall = np.concatenate([[0.0], true_positives / num_fake])
    fall_out = np.concatenate([[0.0], false_positives / num_real])
    excess = fall_out + recall - 1.0  # false positive rate minus false negative rate: rises strictly from -1 to 1
    after = int(np.searchsorted(excess, 0.0))
    before = after - 1
    weight = -excess[before] / (excess[after] - excess[before])
    return float(fall_out[before] + weight * (fall_out[after] - fall_out[before]))


def accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Share of images on the right side of `threshold`; fake means score > threshold, strictly.

    Args:
        labels: (N,) 0 real, 1 fake.
        scores: (N,) in [0, 1], P(fake).
        threshold: in [0, 1).

    Returns:
        A float in [0, 1]; NaN, with a warning, for no images.
    """
    labels, scores = _validated(labels, scores)
    if labels.size == 0:
        warnings.warn("accuracy is undefined: there are no images", UndefinedMetricWarning, stacklevel=2)
        return float("nan")
    return float(np.count_nonzero((scores > threshold) == labels)) / labels.size


def _validated(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return labels as bool (N,) and scores as uint8, uint16, float32 or float64 (N,).

    Raises:
        ValueError: a value cannot be used; the message names the first bad index.
    """
    label_array, score_array = np.asarray(labels), np.asarray(scores)
    if label_array.ndim != 1 or label_array.shape != score_array.shape:
        raise ValueError(
            f"labels and scores must be 1-D of one length, got shapes {label_array.shape} and {score_array.shape}"
        )
    is_fake = label_array.astype(bool)
    bad = label_array != is_fake
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(f"label {label_array[index]!r} at index {index} is neither 0 (real) nor 1 (fake)")
    if score_array.dtype in _INTEGER_KEYS:
        return is_fake, score_array
    if score_array.dtype != np.float32:
        score_array = score_array.astype(np.float64)
    finite = np.isfinite(score_array)
    if not finite.all():
        index = int(np.argmin(finite))
        raise ValueError(f"score {score_array[index]} at index {index} is not finite")
    return is_fake, score_array


def _both_classes(metric: str, num_fake: int, num_real: int) -> bool:
    if num_fake and num_real:
        return True
    message = f"{metric} is undefined: {num_fake} fake and {num_real} real images (both classes are needed)"
    warnings.warn(message, UndefinedMetricWarning, stacklevel=3)
    return False


_INTEGER_KEYS: dict[Any, Any] = {np.dtype(np.uint8): np.dtype(np.uint16), np.dtype(np.uint16): np.dtype(np.uint32)}
"""Scores that are keys but for the label's bit, and the type that has room for it."""


def _sorted_keys(labels: NDArray[np.bool_], scores: NDArray[Any]) -> NDArray[Any]:
    """Return sorted integer keys (N,), `rank of the score << 1 | label`: equal scores share all bits but the lowest.

    The bit pattern of a non-negative IEEE float grows with its value, and below 2.0 its two upper bits are 0, which
    leaves room for the label; sorting integers is several times faster than an argsort. Probabilities that are exact
    in float32 (all that a float32 model writes) take 32-bit keys, others 64-bit ones; any other score is ranked first.
    Small integers are their own rank.
    """
    if scores.dtype in _INTEGER_KEYS:
        keys: NDArray[Any] = np.left_shift(scores.astype(_INTEGER_KEYS[scores.dtype]), 1)
        keys |= labels
        keys.sort()
        return keys
    if not scores.size or scores.min() < 0 or scores.max() >= 2:
        scores = np.unique(scores, return_inverse=True)[1]
    else:
        single = scores.astype(np.float32, copy=False)
        scores = single if np.array_equal(single, scores) else scores
        scores = scores + scores.dtype.type(0)  # -0.0 becomes 0.0
    keys = np.left_shift(scores.view(np.uint32 if scores.dtype.itemsize == 4 else np.uint64), 1)
    keys |= labels
    keys.sort()
    return keys


def _sum_of_fake_positions(keys: NDArray[Any], num_fake: int) -> int:
    """Sum the sorted positions, from 0, at which there is a fake; the rarer class is looked up."""
    is_fake = (keys & keys.dtype.type(1)).astype(bool)
    if 2 * num_fake <= keys.size:
        return int(np.flatnonzero(is_fake).sum(dtype=np.int64))
    return keys.size * (keys.size - 1) // 2 - int(np.flatnonzero(~is_fake).sum(dtype=np.int64))


def _tied_pairs(keys: NDArray[Any]) -> int:
    """Count the (real, fake) pairs with equal scores, from the sorted keys of `_sorted_keys`."""
    one = keys.dtype.type(1)
    # The last real of a tied group is followed by its first fake, whose key is larger by exactly the label bit.
    last_real = np.flatnonzero((keys[1:] ^ keys[:-1]) == one)
    if not last_real.size:
        return 0
    real_keys = keys[last_real]
    reals = last_real + 1 - np.searchsorted(keys, real_keys, side="left")
    fakes = np.searchsorted(keys, real_keys + one, side="right") - (last_real + 1)
    return int(np.sum(reals * fakes, dtype=np.int64))


def _cumulative_counts(labels: NDArray[np.bool_], scores: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count true and false positives (T,) at the T distinct scores as thresholds (score >= t), from the highest."""
    keys = _sorted_keys(labels, scores)[::-1]
    one = keys.dtype.type(1)
    values = keys >> one
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), keys.size - 1)
    true_positives = np.cumsum(keys & one, dtype=np.int64)[ends]
    return true_positives, ends + 1 - true_positives
