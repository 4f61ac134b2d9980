"""A prediction store that is written: by one process or several; an interrupted run leaves no store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.errors import StoreError
from ddl_d2.predictions.layout import map_path
from ddl_d2.predictions.meta import file_sha256, make_meta
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.predictions.conftest import random_map


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fake_score": float("nan")}, "score is nan"),
        ({"fake_score": 1.01}, "score is 1.01"),
        ({"label": 2}, "label is 2"),
        ({"seconds": -1.0}, "time is -1.0"),
        ({"forgery_map": None}, "either all images"),
        ({"forgery_map": np.zeros((2, 2), np.float32)}, "uint8 H x W, got float32"),
        ({"forgery_map": np.zeros((2, 2, 3), np.uint8)}, "uint8 H x W"),
        ({"forgery_map": np.zeros((0, 2), np.uint8)}, "uint8 H x W"),
    ],
)
def test_impossible_values_are_refused(tmp_path, values, message):
    with PredictionStoreWriter(tmp_path / "store") as writer:
        writer.add("a.png", 0.5, random_map())
        with pytest.raises(StoreError, match=message):
            writer.add("b.png", **{"fake_score": 0.5, "forgery_map": random_map(), **values})
    assert PredictionStore(tmp_path / "store").ids == ["a.png"]


def test_scores_without_maps(tmp_path):
    with PredictionStoreWriter(tmp_path / "store") as writer:
        writer.add("a.png", 0.5)
    reader = PredictionStore(tmp_path / "store")
    assert not reader.has_maps
    with pytest.raises(StoreError, match="no forgery maps"):
        reader.read_map("a.png")


def test_an_empty_store_is_a_store(tmp_path):
    PredictionStoreWriter(tmp_path / "store").close()
    assert len(PredictionStore(tmp_path / "store")) == 0


def test_an_existing_store_is_kept_unless_told(store, tmp_path):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="already holds a prediction store"):
        PredictionStoreWriter(store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    (store / "metrics.json").write_text("{}")  # computed from what goes now
    with PredictionStoreWriter(store, overwrite=True) as writer:
        writer.add("c.png", 0.5, random_map())
    assert PredictionStore(store).ids == ["c.png"]
    assert sorted(path.name for path in store.iterdir()) == ["maps", "meta.json", "predictions.csv"]

    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="holds files"):
            PredictionStoreWriter(photos, overwrite=overwrite)
    assert [path.name for path in photos.iterdir()] == ["holiday.jpg"]
    with pytest.raises(StoreError, match="not a folder"):
        PredictionStoreWriter(photos / "holiday.jpg")


def test_an_exception_leaves_no_store(tmp_path):
    def fail() -> None:
        with PredictionStoreWriter(tmp_path / "store") as writer:
            writer.add("a.png", 0.5, random_map())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not (tmp_path / "store" / "predictions.csv").exists()
    with pytest.raises(StoreError, match="interrupted"):
        PredictionStore(tmp_path / "store")
    with pytest.raises(StoreError, match="interrupted run"):
        PredictionStoreWriter(tmp_path / "store")
    with PredictionStoreWriter(tmp_path / "store", overwrite=True) as writer:
        writer.add("b.png", 0.5, random_map())
    assert PredictionStore(tmp_path / "store").ids == ["b.png"]
    assert not map_path(tmp_path / "store", "a.png").exists()


_ENDLESS = """
import sys
import numpy as np
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.predictions.conftest import random_map
writer = PredictionStoreWriter(sys.argv[1])
for number in range(10**9):
    writer.add(f"{number}.png", 0.5, np.zeros((8, 8), np.uint8))
    if number == 20:
        print("going", flush=True)
"""


def test_a_killed_process_leaves_no_store(tmp_path):
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(tmp_path / "store")], cwd=root, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "store" / "maps" / "20.png.png").is_file()
    assert not (tmp_path / "store" / "predictions.csv").exists()
    with pytest.raises(StoreError, match="interrupted"):
        PredictionStore(tmp_path / "store")


def test_a_failed_merge_leaves_no_store(tmp_path, monkeypatch):
    writer = PredictionStoreWriter(tmp_path / "store")
    writer.add("a.png", 0.5, random_map())
    real_replace = os.replace

    def full_disk(source, target):
        if str(target).endswith("predictions.csv"):
            raise OSError(28, "No space left on device")
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert not (tmp_path / "store" / "predictions.csv").exists()
    assert not list((tmp_path / "store").glob("*.tmp"))


def _ranks(root: Path, count: int, work) -> list[BaseException | None]:
    """Run `work(writer, rank)` and `close` on `count` ranks, threads that share a barrier; what each one raised."""
    barrier = threading.Barrier(count)

    def run(rank: int) -> BaseException | None:
        try:
            writer = PredictionStoreWriter(root, rank=rank, world_size=count, barrier=barrier.wait)
            work(writer, rank)
            writer.close(barrier.wait)
        except StoreError as error:
            return error
        return None

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_several_ranks_write_one_store(tmp_path):
    def work(writer: PredictionStoreWriter, rank: int) -> None:
        for number in range(rank, 10, 3):
            writer.add(f"{number}.png", number / 10, random_map(number))
        writer.add("0.png", 0.0, random_map(0))  # padding: all ranks repeat it

    assert _ranks(tmp_path / "store", 3, work) == [None] * 3
    reader = PredictionStore(tmp_path / "store")
    assert reader.ids == [f"{number}.png" for number in range(10)]
    assert reader.scores.tolist() == [number / 10 for number in range(10)]
    assert all((reader.read_map(f"{number}.png") == random_map(number)).all() for number in range(10))
    assert not (tmp_path / "store" / ".parts").exists()
    errors = _ranks(tmp_path / "store", 3, work)
    assert all("already holds" in str(error) for error in errors)  # on every rank, so none waits for another


def test_a_rank_that_did_not_finish_leaves_no_store(tmp_path):
    def work(writer: PredictionStoreWriter, rank: int) -> None:
        writer.add(f"{rank}.png", 0.5, random_map())
        if rank == 1:
            writer.abort()
            writer.close = lambda barrier: barrier()  # it has died, and the barrier's time-out has passed

    errors = _ranks(tmp_path / "store", 2, work)
    assert "process 1 did not finish" in str(errors[0])
    assert not (tmp_path / "store" / "predictions.csv").exists()


def test_ranks_need_a_barrier(tmp_path):
    with pytest.raises(StoreError, match="barrier"):
        PredictionStoreWriter(tmp_path, world_size=2)
    with pytest.raises(StoreError, match="rank 2"):
        PredictionStoreWriter(tmp_path, rank=2, world_size=2)


def test_repeated_images(tmp_path):
    with PredictionStoreWriter(tmp_path / "same") as writer:
        for score in (0.5 + 1e-6, 0.5):
            writer.add("a.png", score, random_map(), label=1, seconds=score)
    assert PredictionStore(tmp_path / "same").scores.tolist() == [0.5]
    writer = PredictionStoreWriter(tmp_path / "unlike")
    for score in (0.5, 0.6):
        writer.add("a.png", score, random_map())
    with pytest.raises(StoreError, match=r"a\.png was predicted twice"):
        writer.close()
    assert not (tmp_path / "unlike" / "predictions.csv").exists()


def test_meta(tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"abc")
    # SHA-256 of "abc", from FIPS 180-2.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(weights) == digest
    meta = make_meta(config="A: 1", weights=weights, threshold=0.4, note="x")
    assert (meta["weights_sha256"], meta["config"], meta["threshold"], meta["note"]) == (digest, "A: 1", 0.4, "x")
    assert {"ddl_d2", "python", "numpy"} <= set(meta["versions"])
    with pytest.raises(StoreError, match="not JSON"):
        PredictionStoreWriter(tmp_path / "store", {"weights": object()})
    assert not (tmp_path / "store").exists()


def test_memory_does_not_grow_with_the_images(tmp_path):
    with PredictionStoreWriter(tmp_path / "store") as writer:
        writer.add("warm.png", 0.5, random_map())
        tracemalloc.start()
        for number in range(300):
            writer.add(f"{number}.png", 0.5, np.full((100, 100), number % 256, np.uint8))
            if number == 49:
                early = tracemalloc.get_traced_memory()[0]
        late = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert late - early < 50_000  # 250 maps of 10 kB would be 2.5 MB
