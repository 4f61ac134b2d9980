"""A report of 240,000 images with the hardest thumbnails there are, noise, stays small."""

from __future__ import annotations

import re

import numpy as np

from ddl_d2.evaluation import ResultTable, compare_tables
from ddl_d2.evaluation.functional import roc_auc
from ddl_d2.evaluation.results import ImageResult
from ddl_d2.io.image import write_png
from ddl_d2.report.chosen import chosen_images
from ddl_d2.report.dataset_page import DatasetReport, dataset_page
from ddl_d2.report.judged import Judged
from tests.fusion.small_stores import write_store

TOTAL, SIDE, SHOWN = 240_000, 360, 12


def test_a_report_of_240000_images_is_under_20_megabytes(tmp_path, rng):
    labels = rng.integers(0, 2, TOTAL)
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1)
    right = rng.integers(0, SIDE * SIDE // 2, TOTAL)
    half = SIDE * SIDE // 2
    rows = [
        ImageResult(
            f"{number:06d}.png",
            label,
            score,
            (hit, 0, half - hit, half) if label else (0, 0, 0, 2 * half),
            True,
            SIDE,
            SIDE,
        )
        for number, (label, score, hit) in enumerate(zip(labels.tolist(), scores.tolist(), right.tolist(), strict=True))
    ]
    write_png(tmp_path / "noise.png", rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    write_png(tmp_path / "mask.png", rng.random((SIDE, SIDE)) < 0.5)
    dataset = {
        row.image_id: {
            "image_id": row.image_id, "is_fake": row.is_fake, "file_name": str(tmp_path / "noise.png"),
            "mask_file_name": str(tmp_path / "mask.png"),
        }
        for row in rows
    }  # fmt: skip
    # Only what is shown needs a map.
    without = Judged("large", write_store(tmp_path / "none", {"a.png": 0.5}), rows, None, 0.5)
    shown = [rows[index].image_id for _, _, chosen in chosen_images(without) for index in chosen[:SHOWN]]
    noise = rng.integers(0, 256, (SIDE, SIDE))
    store = write_store(tmp_path / "maps", dict.fromkeys(shown, 0.5), dict.fromkeys(shown, noise))
    found = compare_tables({"large": ResultTable(rows)}, resamples=4)
    page = dataset_page(
        DatasetReport("title", "set", [Judged("large", store, rows, None, 0.5)], found, dataset, {}, number=SHOWN)
    )
    assert page.count('<article class="card') == 4 * SHOWN
    assert len(page.encode()) < 20e6
    assert f"AUC {roc_auc(labels, scores):.4f} [" in page
    assert max(line.count(",") for line in re.findall(r'points="(.*?)"', page)) <= 4 * 301
