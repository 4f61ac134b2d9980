"""What processes send each other: every row comes back, and its size does not depend on the image's."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from ddl_d2.evaluation import ForgeryEvaluator, ImageResult
from ddl_d2.evaluation import forgery_evaluator as evaluator_module
from ddl_d2.evaluation.packing import pack_results, unpack_results
from ddl_d2.io.image import write_png

ROWS = [
    ImageResult("real/a.jpg", 0, 0.25, (0, 1, 0, 15), True, 4, 4),
    ImageResult("fake/ü 空.png", 1, 1 / 3, (40_000_000, 1, 2, 3), True, 1, 40_000_006, True),
    ImageResult("no label", None, 0.1, None, False, 70_000, 3),
    ImageResult('quotes ", comma', 1, None, (1, 1, 1, 13), True, 4, 4),
    ImageResult("lone surrogate \udcff", 1, 0.0, None, False, 1, 1),
    ImageResult("", 0, 1.0, (2**40, 0, 0, 0), True, 2**20, 2**20),
]


@pytest.mark.parametrize("rows", [ROWS, ROWS[::-1], ROWS[:1], ROWS[2:3], []])
def test_rows_come_back(rows):
    again = list(unpack_results(pickle.loads(pickle.dumps(pack_results(rows)))))
    assert again == rows
    assert [[type(value) for value in row] for row in again] == [[type(value) for value in row] for row in rows]


def test_random_rows_come_back():
    rng = np.random.default_rng(0)
    for count in (1, 7, 300):
        rows = []
        for index in range(count):
            height, width = rng.integers(1, 3000, 2).tolist()
            label = [0, 1, None][int(rng.integers(3))]
            counts = tuple(rng.multinomial(height * width, [0.25] * 4).tolist()) if rng.random() < 0.7 else None
            score = float(rng.random()) if rng.random() < 0.8 else None
            flags = (rng.random(2) < 0.5).tolist()
            rows.append(ImageResult(f"{index}.png", label, score, counts, flags[0], height, width, flags[1]))
        assert list(unpack_results(pack_results(rows))) == rows


def test_scores_of_a_float32_model_travel_as_such():
    single = [ImageResult(f"{i}", 0, float(np.float32(i / 7)), None, True, 1, 1) for i in range(7)]
    assert pack_results(single).scores.dtype == np.float32
    assert pack_results([*single, ROWS[1]]).scores.dtype == np.float64


def _payload(folder, side: int, monkeypatch, count: int = 40) -> int:
    """Bytes that an evaluation of `count` images of side x side gathers."""
    sent = []

    def gather(data):
        sent.append(len(pickle.dumps(data)))
        return [data]

    monkeypatch.setattr(evaluator_module.comm, "gather", gather)
    rng = np.random.default_rng(0)
    write_png(folder / "mask.png", rng.random((side, side)) < 0.3)
    rows = [
        {"image_id": f"fake/{index:06d}.jpg", "is_fake": 1, "mask_file_name": str(folder / "mask.png"),
         "height": side, "width": side} for index in range(count)
    ]  # fmt: skip
    rows[0] = {**rows[0], "is_fake": 0}
    evaluator = ForgeryEvaluator(dataset_rows=rows)
    forgery_map = torch.from_numpy(rng.random((side, side), dtype=np.float32))
    evaluator.process(rows, [{"fake_score": index / count, "forgery_map": forgery_map} for index in range(count)])
    assert evaluator.evaluate()["ddl"]["num_images"] == count
    assert len(sent) == 1
    return sent[0]


def test_processes_gather_counts_and_not_masks(tmp_path, monkeypatch):
    small, large = (_payload(tmp_path, side, monkeypatch) for side in (8, 400))
    assert large - small < 15 * 40  # wider integers only: a mask of 400 x 400 has 20,000 bytes even as bits
    assert large < 60 * 40 + 1000


def test_a_full_set_takes_less_than_ten_megabytes():
    rng = np.random.default_rng(0)
    count = 2000
    names = [f"fake/{rng.integers(2**48):012x}.jpg" for _ in range(count)]
    counts, score = (9, 9, 9, 2_000_000), rng.random
    rows = [ImageResult(name, 1, float(score()), counts, True, 1, 2_000_027) for name in names]
    assert len(pickle.dumps(pack_results(rows))) / count * 240_000 < 10_000_000
