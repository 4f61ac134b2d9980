import threading
import time
from datetime import timedelta

import numpy as np
import pytest
import torch.distributed as dist
from detectron2.utils import comm

from ddl_d2.errors import EvaluationError, ImageReadError
from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.evaluation.forgery_evaluator import ForgeryEvaluator
from ddl_d2.evaluation.pipeline import Pipeline
from ddl_d2.io.image import write_png
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from ddl_d2.utils.distributed import patient_group, wait_for_all
from tests.ranks import on_ranks


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order_to_the_caller(threads):
    pipeline, taken, where = Pipeline(threads), [], set()

    def work(number):
        time.sleep(0.01 * (number % 3))
        where.add(threading.current_thread() is threading.main_thread())
        return number

    for number in range(20):
        pipeline.add(lambda number=number: work(number), taken.append)
    pipeline.finish()
    assert taken == list(range(20))
    assert where == {threads == 0}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evaluation")]


def test_no_more_is_begun_than_fits():
    pipeline, gate, most = Pipeline(2), threading.Event(), []
    for _ in range(8):
        pipeline.add(gate.wait, lambda _: None)
    most.append(len(pipeline._begun))
    gate.set()
    for _ in range(3):
        pipeline.add(lambda: None, lambda _: None, 70 * 2**20)  # each is more than may be held
        most.append(len(pipeline._begun))
    pipeline.finish()
    assert most == [8, 0, 0, 0]


def test_what_work_raises_reaches_the_caller_and_ends_it():
    pipeline, done = Pipeline(1), []

    def fail():
        raise EvaluationError("x.png: impossible")

    def fail_in_it():
        pipeline.add(fail, done.append)  # raised here, if it is done by now
        pipeline.finish()

    with pytest.raises(EvaluationError, match="impossible"):
        fail_in_it()
    pipeline.add(lambda: 1, done.append)
    pipeline.finish()
    assert done == [1]


def _rows(folder, count=12):
    rng = np.random.default_rng(0)
    rows, outputs = [], []
    for i in range(count):
        mask = rng.random((40, 50)) > 0.7
        write_png(folder / f"masks/{i}.png", mask)
        rows.append({"image_id": f"{i}.png", "is_fake": int(i % 3 > 0), "height": 40, "width": 50})
        rows[-1] |= {"mask_file_name": str(folder / f"masks/{i}.png")} if i % 3 else {}
        outputs.append({"fake_score": float(rng.random()), "forgery_map": rng.random((40, 50), dtype=np.float32)})
    return rows, outputs


def _evaluate(rows, outputs, folder, threads):
    store = PredictionStoreWriter(folder / "store")
    evaluator = ForgeryEvaluator(dataset_rows=rows, output_dir=folder, store=store, threads=threads)
    evaluator.reset()
    for row, output in zip(rows, outputs, strict=True):
        evaluator.process([row], [output])
    evaluator.evaluate()
    return (folder / "metrics.json").read_bytes()


def test_threads_change_nothing(tmp_path):
    rows, outputs = _rows(tmp_path)
    assert _evaluate(rows, outputs, tmp_path / "a", 0) == _evaluate(rows, outputs, tmp_path / "b", 3)
    one, other = PredictionStore(tmp_path / "a/store"), PredictionStore(tmp_path / "b/store")
    assert one.ids == other.ids
    assert (one.scores == other.scores).all()
    assert all((one.read_map(name) == other.read_map(name)).all() for name in one)


def test_threads_say_what_is_wrong(tmp_path):
    rows, outputs = _rows(tmp_path)
    bad = [{**output} for output in outputs]
    bad[3]["forgery_map"] = np.full((40, 50), 2, np.float32)
    with pytest.raises(EvaluationError, match=r"3\.png: forgery map values"):
        _evaluate(rows, bad, tmp_path / "a", 2)
    broken = [{**row} for row in rows]
    broken[4]["mask_file_name"] = str(tmp_path / "no.png")
    broken[5]["unreadable"] = ImageReadError("5.png", "is broken")
    with pytest.raises(IncompleteEvaluationError, match="2 of 12 images"):
        _evaluate(broken, outputs, tmp_path / "b", 2)


def _late(rank, rows, outputs, folder):
    """Collectives may take 1.5 s, and one rank is twice as late as that: for its share, and for the store."""
    patient_group()
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1.5))
    store = PredictionStoreWriter(folder / "store", rank=rank, world_size=2, barrier=wait_for_all)
    evaluator = ForgeryEvaluator(dataset_rows=rows, output_dir=folder, store=store)
    evaluator.reset()
    evaluator.process(rows[rank::2], outputs[rank::2])
    if rank == 1:
        time.sleep(3)
    if rank == 0:
        close = store.close
        store.close = lambda barrier: (close(barrier), time.sleep(3))
    return evaluator.evaluate().get("ddl", {}).get("num_images")


def test_a_late_rank_does_not_end_the_evaluation(tmp_path):
    rows, outputs = _rows(tmp_path)
    assert on_ranks(_late, 2, rows, outputs, tmp_path / "both") == [12, None]


def _too_late(rank):
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1.5))
    if rank == 1:
        time.sleep(3)
    comm.synchronize()


def test_the_limit_of_collectives_is_real():
    results = on_ranks(_too_late, 2)
    assert any("imed out" in str(result) or "Connection closed" in str(result) for result in results), results
