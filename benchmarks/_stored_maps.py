"""Timing the parts of an evaluation from a prediction store."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _random_maps import random_map

from ddl_d2.data import targets
from ddl_d2.evaluation import ImageResult, ResultTable, from_store, map_counts, table_from_store
from ddl_d2.evaluation.functional import pixel_counts
from ddl_d2.io.image import write_png
from ddl_d2.predictions.maps import binarize_map, quantize_map
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter

FULL_SET = 240_000
"""Images of the dataset that a full evaluation is reckoned for."""

STORED_SIZE = 512
"""Side of the stored maps, in pixels."""


def write_store(root: Path, count: int) -> list[dict[str, Any]]:
    """A store of `count` maps and its dataset, half of it fake with 1-bit masks; returns the rows."""
    rows: list[dict[str, Any]] = []
    with PredictionStoreWriter(root / "store") as writer:
        for index in range(count):
            name, fake = f"{index:06d}.png", index % 2
            mask, forgery_map = random_map(STORED_SIZE, seed=index, noise=0)
            row = {"file_name": str(root / name), "image_id": name, "is_fake": fake}
            write_png(row["file_name"], mask)  # of an image only the header is read
            if fake:
                row["mask_file_name"] = str(root / "masks" / name)
                write_png(row["mask_file_name"], mask)
            writer.add(name, 0.25 + 0.5 * fake, quantize_map(forgery_map), label=fake)
            rows.append(row)
    return rows


class Watched:
    """A function that adds up the processor time spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        start = time.process_time()
        try:
            return self.function(*args, **keywords)
        finally:
            self.seconds += time.process_time() - start


def store_once(store: PredictionStore, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of one evaluation by what they were spent on."""
    maps, masks = Watched(store.read_map), Watched(targets.read_row_mask)
    headers, counting = Watched(from_store.read_row_size), Watched(pixel_counts)
    thresholds = Watched(binarize_map)
    start = time.process_time()
    with (
        mock.patch.object(store, "read_map", maps),
        mock.patch.object(targets, "read_row_mask", masks),
        mock.patch.object(from_store, "read_row_size", headers),
        mock.patch.object(map_counts, "pixel_counts", counting),
        mock.patch.object(map_counts, "binarize_map", thresholds),
    ):
        table = table_from_store(store, rows)
        table.metrics()
    total = time.process_time() - start
    spent = {
        "maps": maps.seconds,
        "masks": masks.seconds,
        "headers": headers.seconds,
        "thresholds and counts": thresholds.seconds + counting.seconds,
    }
    return {**spent, "rest": total - sum(spent.values()), "total": total}


def stored_maps(count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per image of each part of an evaluation from a store, and what a full set would take."""
    with tempfile.TemporaryDirectory() as folder:
        rows = write_store(Path(folder), count)
        store = PredictionStore(Path(folder) / "store")
        expected = table_from_store(store, rows).metrics()
        equal = expected == _plainly_evaluated(store, rows)
        turns = [store_once(store, rows) for _ in range(rounds)]
    ms = {part: 1000 * statistics.median(turn[part] for turn in turns) / count for part in turns[0]}
    decoding = ms["maps"] + ms["masks"]
    return {
        "images": count,
        "equal": equal,
        "ms_per_image": ms,
        "share_decoding": decoding / ms["total"],
        "share_counting": ms["thresholds and counts"] / ms["total"],
        "full_set_images": FULL_SET,
        "full_set_minutes_one_core": FULL_SET * ms["total"] / 60_000,
    }


def _plainly_evaluated(store: PredictionStore, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The same metrics, counted pixel by pixel with logic alone."""
    results = []
    for row in rows:
        found = store.read_map(row["image_id"]).astype(np.int64) * 2 > 255
        mask = targets.read_row_mask(row) if row["is_fake"] else np.zeros_like(found)
        counts = tuple(int((a & b).sum()) for a, b in ((found, mask), (found, ~mask), (~found, mask), (~found, ~mask)))
        score = store.score(row["image_id"])
        results.append(ImageResult(row["image_id"], row["is_fake"], score, counts, True, *found.shape))
    return ResultTable(results).metrics()
