"""The Detectron2 evaluator on small images: truth at original size, odd outputs, stores, several processes."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import comm

from ddl_d2.errors import EvaluationError, ImageReadError, StoreError
from ddl_d2.evaluation import ForgeryEvaluator, IncompleteEvaluationError
from ddl_d2.evaluation import forgery_evaluator as evaluator_module
from ddl_d2.evaluation.from_store import table_from_store
from ddl_d2.io.image import write_png
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.ranks import on_ranks

SIZES = [(8, 12), (16, 8), (8, 8)]


def _make_rows(folder, count: int = 12) -> list[dict]:
    """A dataset on disk: even images real, odd ones fake with a mask; three sizes."""
    rows = []
    for index in range(count):
        height, width = SIZES[index % 3]
        fake = index % 2
        path = folder / ("fake" if fake else "real") / f"{index}.png"
        write_png(path, np.full((height, width, 3), index, np.uint8))
        row = {"file_name": str(path), "image_id": f"{path.parent.name}/{path.name}", "is_fake": fake}
        if fake:
            mask = np.zeros((height, width), bool)
            mask[: height // 2, : 1 + index % 5] = True
            row["mask_file_name"] = str(folder / "masks" / path.name)
            write_png(row["mask_file_name"], mask)
        rows.append({**row, "height": height, "width": width})
    return rows


def _output(row: dict) -> dict:
    """A prediction that depends on the image only."""
    seed = int(row["image_id"].split("/")[1].split(".")[0])
    rng = np.random.default_rng(seed)
    forgery_map = torch.from_numpy(rng.random((row["height"], row["width"])).astype(np.float32))
    return {"fake_score": float(np.float32(rng.random())), "forgery_map": forgery_map}


def _evaluate(rows, outputs=None, **options):
    evaluator = ForgeryEvaluator(dataset_rows=rows, **options)
    evaluator.reset()
    for row, output in zip(rows, outputs or map(_output, rows), strict=True):
        evaluator.process([row], [output])
    return evaluator.evaluate()


def test_perfect_prediction(tmp_path):
    rows = _make_rows(tmp_path)
    outputs = []
    for row in rows:
        forgery_map = torch.zeros(row["height"], row["width"])
        if row["is_fake"]:
            forgery_map[: row["height"] // 2, : 1 + int(row["image_id"][5:].split(".")[0]) % 5] = 0.9
        outputs.append({"fake_score": 0.1 + 0.8 * row["is_fake"], "forgery_map": forgery_map})
    metrics = _evaluate(rows, outputs)["ddl"]
    for key in ("auc", "f1", "iou", "final", "pooled_f1", "pooled_iou", "miou", "all_f1", "all_iou", "accuracy", "ap"):
        assert metrics[key] == 1.0, key
    assert (metrics["eer"], metrics["num_images"], metrics["num_localized"]) == (0.0, 12, 6)
    assert all(isinstance(value, (int, float)) for value in metrics.values())  # Detectron2's EvalHook wants numbers


def test_missing_image_is_an_error(tmp_path):
    rows = _make_rows(tmp_path)
    evaluator = ForgeryEvaluator(dataset_rows=rows)
    evaluator.process(rows[1:], [_output(row) for row in rows[1:]])
    with pytest.raises(EvaluationError, match=r"1 of 12 images of the dataset were not scored: real/0\.png"):
        evaluator.evaluate()


def test_registered_name(tmp_path):
    from detectron2.data import DatasetCatalog

    rows = _make_rows(tmp_path, 4)
    DatasetCatalog.register("forgery_evaluator_test", lambda: rows)
    try:
        by_name = ForgeryEvaluator(dataset_rows="forgery_evaluator_test")
        by_name.process(rows, list(map(_output, rows)))
        assert by_name.evaluate() == _evaluate(rows)
    finally:
        DatasetCatalog.remove("forgery_evaluator_test")


def test_mask_of_another_size_is_resized_and_counted(tmp_path):
    rows = _make_rows(tmp_path, 2)
    write_png(rows[1]["mask_file_name"], np.repeat(np.repeat(np.eye(8, dtype=bool), 4, 0), 2, 1))  # 32 x 16
    forgery_map = torch.eye(8).repeat_interleave(2, 0)  # 16 x 8, the image's size
    outputs = [_output(rows[0]), {"fake_score": 0.9, "forgery_map": forgery_map}]
    metrics = _evaluate(rows, outputs)["ddl"]
    assert metrics["f1"] == 1.0
    assert metrics["num_resized_masks"] == 1


def test_fake_without_mask_and_wholly_forged(tmp_path):
    rows = _make_rows(tmp_path, 6)
    del rows[1]["mask_file_name"]
    del rows[3]["mask_file_name"]
    rows[3]["fully_forged"] = True
    metrics = _evaluate(rows)["ddl"]
    assert (metrics["num_fake"], metrics["num_fake_without_mask"], metrics["num_localized"]) == (3, 1, 2)


def _with_bad_files(rows):
    """Of 12 rows: the mask of 1 is empty, the image of 4 could not be read."""
    open(rows[1]["mask_file_name"], "wb").close()
    rows[4] = {**rows[4], "unreadable": ImageReadError(rows[4]["file_name"], "is broken")}
    return rows


def test_what_cannot_be_read_is_listed_and_the_rest_is_scored(tmp_path, caplog):
    rows = _with_bad_files(_make_rows(tmp_path))
    store = PredictionStoreWriter(tmp_path / "store")
    message = r"2 of 12 images .*masks/1\.png: is empty .*4\.png: is broken"
    with pytest.raises(IncompleteEvaluationError, match=message) as e:
        _evaluate(rows, output_dir=tmp_path / "out", store=store)
    assert str(tmp_path / "out" / "metrics.json") in str(e.value)
    assert [bad.image_id for bad in e.value.files] == ["fake/1.png", "real/4.png"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics.pop("complete"), metrics["num_images"], metrics["num_fake"]) == (False, 10, 5)
    assert metrics.pop("unreadable") == [
        {"image_id": "fake/1.png", "file": rows[1]["mask_file_name"], "reason": "is empty (0 bytes)"},
        {"image_id": "real/4.png", "file": rows[4]["file_name"], "reason": "is broken"},
    ]
    with pytest.raises(StoreError, match="not a complete prediction store"):
        PredictionStore(tmp_path / "store")
    assert caplog.text.count("is not scored") == 2
    # Its numbers are those of a set of the other ten.
    others = [row for n, row in enumerate(rows) if n not in (1, 4)]
    _evaluate(others, output_dir=tmp_path / "others")
    expected = json.loads((tmp_path / "others" / "metrics.json").read_text())
    assert expected.pop("complete") is True
    assert metrics == expected


def test_nothing_can_be_read(tmp_path):
    error = ImageReadError("x", "is broken")
    rows = [{**row, "unreadable": error} for row in _make_rows(tmp_path, 3)]
    with pytest.raises(IncompleteEvaluationError, match="3 of 3 images"):
        _evaluate(rows, output_dir=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_images"] == 0


def test_a_forgotten_image_is_not_excused_by_a_bad_one(tmp_path):
    rows = _with_bad_files(_make_rows(tmp_path))
    evaluator = ForgeryEvaluator(dataset_rows=rows)
    evaluator.process(rows[:-1], [_output(row) for row in rows[:-1]])
    with pytest.raises(EvaluationError, match=r"1 of 10 images of the dataset were not scored: fake/11\.png"):
        evaluator.evaluate()


def test_a_store_against_files_that_cannot_be_read(tmp_path):
    rows = _make_rows(tmp_path)
    _evaluate(rows, store=PredictionStoreWriter(tmp_path / "store"))
    (tmp_path / "store/maps/real/2.png.png").write_bytes(b"")
    open(rows[3]["mask_file_name"], "wb").close()
    open(rows[6]["file_name"], "wb").close()
    for workers in (1, 3):
        with pytest.raises(IncompleteEvaluationError, match=r"3 of 12 images") as e:
            table_from_store(PredictionStore(tmp_path / "store"), rows, workers=workers)
        assert [bad.image_id for bad in e.value.files] == ["real/2.png", "fake/3.png", "real/6.png"]
        assert "the forgery map of real/2.png" in str(e.value)
    again = pickle.loads(pickle.dumps(e.value))
    assert (str(again), again.files) == (str(e.value), e.value.files)


def test_real_images_need_no_mask_file(tmp_path):
    rows = _make_rows(tmp_path, 2)
    rows[0]["mask_file_name"] = str(tmp_path / "absent.png")
    assert _evaluate(rows)["ddl"]["num_real"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fake_score": math.nan}, "the fake score is nan"),
        ({"fake_score": 3.0}, "the fake score is 3.0"),
        ({"forgery_map": torch.full((8, 12), math.nan)}, "values span"),
        ({"forgery_map": torch.full((8, 12), 2.0)}, "values span"),
        ({"forgery_map": torch.zeros(12, 8)}, r"the forgery map is \(12, 8\), the image \(8, 12\)"),
        ({"forgery_map": torch.zeros(8, 12, dtype=torch.uint8)}, "a float H x W array"),
        ({"forgery_map": None, "fake_score": None}, "neither fake_score nor forgery_map"),
    ],
)
def test_impossible_outputs_are_refused(tmp_path, change, message):
    row = _make_rows(tmp_path, 1)[0]
    with pytest.raises(EvaluationError, match=r"real/0\.png: .*" + message):
        ForgeryEvaluator(dataset_rows=[row]).process([row], [{**_output(row), **change}])


def test_half_precision_tensors(tmp_path):
    rows = _make_rows(tmp_path, 4)
    outputs = [{"fake_score": torch.tensor(0.5 + 0.25 * row["is_fake"])} for row in rows]
    for output, row in zip(outputs, rows, strict=True):
        output["forgery_map"] = torch.full((row["height"], row["width"]), 0.75, dtype=torch.bfloat16)
    assert _evaluate(rows, outputs)["ddl"]["auc"] == 1.0


def test_localization_only_model(tmp_path):
    rows = _make_rows(tmp_path)
    outputs = [{"forgery_map": _output(row)["forgery_map"]} for row in rows]
    plain = _evaluate(rows, outputs)["ddl"]
    assert math.isnan(plain["auc"])
    assert not math.isnan(plain["f1"])


def test_detection_only_model(tmp_path):
    rows = _make_rows(tmp_path)
    metrics = _evaluate(rows, [{"fake_score": _output(row)["fake_score"]} for row in rows])["ddl"]
    assert metrics["auc"] == _evaluate(rows)["ddl"]["auc"]
    assert math.isnan(metrics["iou"])


def test_unlabeled_images_give_a_store_and_no_metrics(tmp_path):
    rows = [{key: row[key] for key in ("file_name", "image_id", "height", "width")} for row in _make_rows(tmp_path, 3)]
    store = PredictionStoreWriter(tmp_path / "store")
    assert _evaluate(rows, store=store) == {}
    assert PredictionStore(tmp_path / "store").labels.tolist() == [-1, -1, -1]


def test_store_evaluates_to_the_same_numbers(tmp_path):
    rows = _make_rows(tmp_path)
    store = PredictionStoreWriter(tmp_path / "store")
    evaluator = ForgeryEvaluator(dataset_rows=rows, store=store)
    evaluator.process(rows, list(map(_output, rows)))
    metrics = evaluator.evaluate()["ddl"]
    reader = PredictionStore(tmp_path / "store")
    for workers in (1, 3):
        assert table_from_store(reader, rows, workers=workers).metrics() == metrics
    with pytest.raises(EvaluationError, match="serves one evaluation"):
        evaluator.reset()


def test_store_and_data_set_must_fit(tmp_path):
    rows = _make_rows(tmp_path, 4)
    _evaluate(rows[:3], store=PredictionStoreWriter(tmp_path / "store"))
    reader = PredictionStore(tmp_path / "store")
    with pytest.raises(EvaluationError, match=r"not scored: fake/3\.png"):
        table_from_store(reader, rows)
    with pytest.raises(EvaluationError, match=r"not in the dataset: real/2\.png"):
        table_from_store(reader, rows[:2])
    assert len(table_from_store(reader, rows, intersection=True)) == 3
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        table_from_store(reader, rows[3:], intersection=True)
    with pytest.raises(EvaluationError, match=r"real/0\.png: the dataset's label is 1"):
        table_from_store(reader, [{**rows[0], "is_fake": 1}, *rows[1:3]])
    write_png(rows[0]["file_name"], np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(EvaluationError, match=r"real/0\.png: the forgery map is \(8, 12\), the image \(5, 5\)"):
        table_from_store(reader, rows[:3])


def test_unknown_options_are_refused():
    for option in ({"threshold": 1.0}, {"empty_score": "2"}):
        with pytest.raises(EvaluationError):
            ForgeryEvaluator(dataset_rows=[], **option)


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
    assert large < 80 * 40


def _evaluate_as_one_of(rank: int, world_size: int, folder: Path, rows: list[dict]) -> None:
    """Evaluate every world_size-th image; the list is padded by repeating its start, as samplers do."""
    store = PredictionStoreWriter(folder / "store", rank=rank, world_size=world_size, barrier=comm.synchronize)
    evaluator = ForgeryEvaluator(dataset_rows=rows, output_dir=folder, store=store)
    evaluator.reset()
    padded = rows + rows[: -len(rows) % world_size]
    for row in padded[rank::world_size]:
        evaluator.process([row], [_output(row)])
    result = evaluator.evaluate()
    assert bool(result) == (rank == 0)
    # An incomplete evaluation must fail everywhere, or the other processes would wait for ever.
    with pytest.raises(EvaluationError, match="not scored"):
        ForgeryEvaluator(dataset_rows=rows).evaluate()
    bad = ForgeryEvaluator(dataset_rows=rows)
    for n, row in list(enumerate(padded))[rank::world_size]:
        broken = {"unreadable": ImageReadError(row["file_name"], "is broken")} if n == 1 else {}
        bad.process([row | broken], [_output(row)])
    with pytest.raises(IncompleteEvaluationError, match=r"1 of 13 images .*fake/1\.png: is broken"):
        bad.evaluate()


def test_world_sizes_1_2_3_write_the_same_bytes(tmp_path):
    rows = _make_rows(tmp_path / "data", 13)
    single = tmp_path / "1"
    _evaluate(rows, output_dir=single, store=PredictionStoreWriter(single / "store"))
    _evaluate(rows, output_dir=tmp_path / "again")
    expected = (single / "metrics.json").read_bytes()
    assert (tmp_path / "again" / "metrics.json").read_bytes() == expected
    for world_size in (2, 3):
        folder = tmp_path / str(world_size)
        results = on_ranks(_evaluate_as_one_of, world_size, world_size, folder, rows)
        assert results == [None] * world_size
        assert (folder / "metrics.json").read_bytes() == expected, world_size
        store, reference = PredictionStore(folder / "store"), PredictionStore(single / "store")
        assert store.ids == reference.ids
        assert (store.scores == reference.scores).all()
        assert all((store.read_map(name) == reference.read_map(name)).all() for name in store)
        assert not (folder / "store" / ".parts").exists()
