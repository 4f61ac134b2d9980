"""The pixel counts of one forgery map against the forgery mask of its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation.functional import pixel_counts
from ddl_d2.predictions.maps import binarize_map
from ddl_d2.utils.limits import MAX_PIXELS


class MapCounts(NamedTuple):
    """What counting a map's pixels against the truth gave.

    Attributes:
        counts: (TP, FP, FN, TN) in pixels, None if map or truth is missing.
        has_mask: whether the truth is known.
        resized: whether the mask file had another size than the image.
    """

    counts: tuple[int, int, int, int] | None
    has_mask: bool
    resized: bool


def count_map(
    row: Mapping[str, Any],
    forgery_map: NDArray | None,
    height: int,
    width: int,
    *,
    threshold: float,
    max_pixels: int = MAX_PIXELS,
) -> MapCounts:
    """Count a forgery map's pixels against the truth of a dataset dict, whose mask file is only read if there is a map.

    Args:
        row: the dataset dict.
        forgery_map: height x width, see `binarize_map`; None if the system gives none.
        height: of the original image, in pixels.
        width: likewise.
        threshold: in [0, 1); a pixel is forged above it.
        max_pixels: the most pixels that a mask may have.

    Raises:
        EvaluationError: the map has another size than the image.
        ImageReadError: the mask cannot be read.
    """
    label = row.get("is_fake")
    has_mask = label == 0 or (label == 1 and bool(row.get("mask_file_name") or row.get("fully_forged")))
    if forgery_map is None:
        return MapCounts(None, has_mask, False)
    if forgery_map.shape != (height, width):
        raise EvaluationError(f"{row['image_id']}: the forgery map is {forgery_map.shape}, the image {(height, width)}")
    truth = read_forgery_mask(row, height, width, max_pixels=max_pixels) if has_mask else None
    if truth is None:
        return MapCounts(None, False, False)
    return MapCounts(pixel_counts(binarize_map(forgery_map, threshold), truth.mask), True, truth.resized)
