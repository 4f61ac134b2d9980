"""Which images of a dataset a report shows, and what it shows of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.evaluation.functional.localization import f1_iou_per_image
from ddl_d2.io.rows import read_row_image
from ddl_d2.predictions.maps import binarize_map
from ddl_d2.predictions.regions import forged_regions
from ddl_d2.predictions.verdict import AUTHENTIC, FAKE, FORGED, INCONCLUSIVE, NO_FACE, REAL
from ddl_d2.report.gallery import MAP, Card, Gallery, View, image_uri, map_uri, mask_uri
from ddl_d2.report.judged import Judged

_LISTED = 3
"""Of the forged regions of an image, so many are listed with their place."""

Indices = NDArray[np.int64]


def store_galleries(one: Judged, rows: Mapping[str, Mapping[str, Any]], *, number: int) -> list[Gallery]:
    """Make the galleries of a system.

    Args:
        one: its results.
        rows: the dataset dicts, by image id.
        number: of images in each gallery, at most.

    Raises:
        ImageReadError: an image or its mask cannot be read.
        StoreError: a forgery map cannot be read.
    """
    return [
        Gallery(name, note, [store_card(one, int(index), rows[one.rows[index].image_id]) for index in chosen[:number]])
        for name, note, chosen in chosen_images(one)
    ]


def chosen_images(one: Judged) -> list[tuple[str, str, Indices]]:
    """Sort a system's images into galleries: their names, a sentence about each, and its images, the first first."""
    called, cleared = np.isin(one.verdicts, (FORGED, FAKE)), np.isin(one.verdicts, (AUTHENTIC, REAL))
    fake, scores = one.labels == 1, one.scores
    counts = np.array([row.counts or (0, 0, 0, 0) for row in one.rows], np.int64)
    f1 = f1_iou_per_image(counts)[0]
    localized = fake & np.array([row.counts is not None for row in one.rows], bool) & ~np.isnan(f1)
    galleries = []
    if localized.any():
        best, worst = _ordered(called & localized, -f1), _ordered(called & localized, f1)
        half = (len(best) + 1) // 2  # no image is among both
        galleries += [
            ("Best", "Fakes that were found; the forgery map agrees best with the truth first.", best[:half]),
            (
                "Worst",
                "Fakes that were found, but whose forgery map agrees least with the truth.",
                worst[: len(worst) // 2],
            ),
        ]
    else:
        galleries.append(("Best", "Fakes that were found, the highest scores first.", _ordered(called & fake, -scores)))
    galleries += [
        (
            "False alarms",
            "Real images that were called fake, the highest scores first.",
            _ordered(called & ~fake, -scores),
        ),
        ("Misses", "Fakes that were not called so, the lowest scores first.", _ordered(cleared & fake, scores)),
    ]
    if one.calibration is not None:
        strength = np.abs(one.calibration.log10_lr(scores))
        unclear = _ordered(one.verdicts == INCONCLUSIVE, strength)
        galleries.append(
            ("Inconclusive", "The calibration decides for neither; likelihood ratios nearest to 1 first.", unclear)
        )
    return galleries


def _ordered(chosen: NDArray[np.bool_], key: NDArray[np.float64]) -> Indices:
    """The chosen images by a key, the smallest first; ties in the order of their ids."""
    where = np.flatnonzero(chosen)
    return where[np.argsort(key[where], kind="stable")]


def store_card(one: Judged, index: int, row: Mapping[str, Any]) -> Card:
    """Read an image of the dataset, its map and its mask, and say what is known of it."""
    result, verdict, store = one.rows[index], one.verdict(index), one.store
    image = read_row_image(row, max_pixels=store.max_pixels)
    truth = "fake" if result.is_fake else "real"
    views = [View("Image", f"Image {result.image_id}, {truth}", image_uri(image))]
    known: list[tuple[str, object]] = [("Score", f"{one.scores[index]:.4f}" if result.has_face else "none: no face")]
    if verdict.log10_lr is not None:
        known.append(("log10 likelihood ratio", f"{verdict.log10_lr:+.2f}"))
    if store.has_maps and verdict.label != NO_FACE:
        stored = store.read_map(result.image_id)
        forged = binarize_map(stored, one.threshold)
        share = f"{100 * forged.mean():.1f} % of the pixels above the threshold {one.threshold:g}"
        views.append(
            View(
                MAP,
                f"Forgery map of {result.image_id}: {share}",
                map_uri(stored.astype(np.float32) / 255, one.threshold),
            )
        )
        known.append(("Forgery map", share))
        if regions := forged_regions(stored / 255, forged):
            known.append(("Regions", _regions([(region.box, region.mean_probability) for region in regions])))
        if result.is_fake and result.counts is not None:
            f1, iou = (float(values[0]) for values in f1_iou_per_image(np.array([result.counts])))
            known.append(("Agreement with the truth", f"F1 {f1:.3f}, IoU {iou:.3f}"))
    if result.is_fake:
        mask = read_forgery_mask(row, *image.shape[:2], max_pixels=store.max_pixels)
        if mask is not None:
            forged_share = f"{100 * mask.mask.mean():.1f} % of the pixels are forged"
            views.append(View("Forgery mask (truth)", f"Forgery mask: {forged_share}", mask_uri(mask.mask)))
    kind = (result.forgery_type or "") if result.is_fake else ""
    return Card(result.image_id, verdict.label, result.is_fake, kind, views, known, [f"{verdict.reason}."])


def _regions(regions: list[tuple[tuple[int, ...], float]]) -> str:
    """The number of regions, and the place of the largest."""
    places = "; ".join(
        f"x {x0} to {x1}, y {y0} to {y1} (mean {mean:.2f})" for (x0, y0, x1, y1), mean in regions[:_LISTED]
    )
    more = ", the largest" if len(regions) > _LISTED else ""
    return f"{len(regions)}{more}: {places}"
