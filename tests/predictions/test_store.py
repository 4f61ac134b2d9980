"""The prediction store: what is written is read, nothing leaves its folder, an interrupted run leaves no store."""

from __future__ import annotations

import csv
import json
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
from ddl_d2.io.image import write_png
from ddl_d2.predictions.store import (
    CSV_COLUMNS,
    PredictionStore,
    PredictionStoreWriter,
    file_sha256,
    make_meta,
    map_path,
)


def _map(seed: int = 0, size: tuple[int, int] = (5, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def store(tmp_path) -> Path:
    """A store of three images."""
    with PredictionStoreWriter(tmp_path / "store", {"config": "A: 1\n"}) as writer:
        writer.add("real/a.jpg", 0.1, _map(0), label=0, seconds=0.25)
        writer.add("fake/a.jpg", 1 / 3, _map(1), label=1)
        writer.add("b.png", 1.0, _map(2))
    return tmp_path / "store"


def _rewrite(store: Path, change) -> None:
    """Apply `change` to the lines of predictions.csv."""
    path = store / "predictions.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_round_trip(store):
    reader = PredictionStore(store)
    assert reader.ids == list(reader) == ["b.png", "fake/a.jpg", "real/a.jpg"]
    assert reader.scores.tolist() == [1.0, 1 / 3, 0.1]  # to the last bit
    assert reader.labels.tolist() == [-1, 1, 0]
    assert np.isnan(reader.seconds).tolist() == [True, True, False]
    assert reader.seconds[2] == 0.25
    assert reader.has_maps
    assert reader.meta["config"] == "A: 1\n"
    for seed, image_id in enumerate(["real/a.jpg", "fake/a.jpg", "b.png"]):
        assert (reader.read_map(image_id) == _map(seed)).all()
    assert (len(reader), "b.png" in reader, "c.png" in reader) == (3, True, False)
    assert reader.score("fake/a.jpg") == 1 / 3


def test_files_are_where_the_layout_says(store):
    files = sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())
    assert files == ["maps/b.png.png", "maps/fake/a.jpg.png", "maps/real/a.jpg.png", "meta.json", "predictions.csv"]
    with open(store / "predictions.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == list(CSV_COLUMNS) == ["image_id", "fake_score", "label", "seconds"]
    assert lines[1:] == [
        ["b.png", "1.0", "", ""],
        ["fake/a.jpg", repr(1 / 3), "1", ""],
        ["real/a.jpg", "0.1", "0", "0.250000"],
    ]
    assert json.loads((store / "meta.json").read_text())["num_images"] == 3


def test_names_do_not_collide(tmp_path):
    names = ["a.jpg", "a.png", "a", "real/a.jpg", "fake/a.jpg", "a.png.png", 'with "quotes", comma.png', "ü 空.png"]
    with PredictionStoreWriter(tmp_path / "store") as writer:
        for seed, name in enumerate(names):
            writer.add(name, 0.5, _map(seed))
    reader = PredictionStore(tmp_path / "store")
    assert reader.ids == sorted(names)
    for seed, name in enumerate(names):
        assert (reader.read_map(name) == _map(seed)).all()


BAD_IDS = ["", "/etc/passwd", "../a.png", "a/../../b.png", "a//b.png", "./a.png", "a/", "..", "C:/a.png", "a\\b.png"]


@pytest.mark.parametrize("image_id", [*BAD_IDS, "a\0b.png", "a\nb.png", "\udcff.png"])
def test_ids_cannot_leave_the_store(tmp_path, image_id):
    with PredictionStoreWriter(tmp_path / "in" / "store") as writer, pytest.raises(StoreError, match="image_id"):
        writer.add(image_id, 0.5, _map())
    assert not list(tmp_path.rglob("*.png"))
    with pytest.raises(StoreError, match="image_id"):
        map_path(tmp_path, image_id)


@pytest.mark.parametrize("image_id", BAD_IDS)
def test_a_list_cannot_point_out_of_the_store(store, image_id):
    _rewrite(store, lambda lines: [*lines[:-1], f"{image_id},0.5,,"])
    with pytest.raises(StoreError, match="line 4: image_id"):
        PredictionStore(store)


def test_a_link_cannot_lead_out_of_the_store(store, tmp_path):
    write_png(tmp_path / "secret.png", _map(9))
    map_path(store, "b.png").unlink()
    map_path(store, "b.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(StoreError, match="leaves the store"):
        PredictionStore(store).read_map("b.png")


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
        writer.add("a.png", 0.5, _map())
        with pytest.raises(StoreError, match=message):
            writer.add("b.png", **{"fake_score": 0.5, "forgery_map": _map(), **values})
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "first line must be"),
        (lambda lines: [], "first line must be"),
        (lambda lines: [*lines, lines[1]], "line 5: b.png is listed twice"),
        (lambda lines: lines[:-1], "2 images, but meta.json says 3"),
        (lambda lines: [*lines[:-1], "real/a.jpg,nan,,"], "line 4: the fake score of real/a.jpg is nan"),
        (lambda lines: [*lines[:-1], "real/a.jpg,2,,"], "line 4: the fake score"),
        (lambda lines: [*lines[:-1], "real/a.jpg,high,,"], "line 4: could not convert"),
        (lambda lines: [*lines[:-1], "real/a.jpg,0.5,maybe,"], "line 4: the label"),
        (lambda lines: [*lines[:-1], "real/a.jpg,0.5"], "line 4: 2 fields"),
        (lambda lines: [*lines[:-1], "real/c.jpg,0.5,,"], "1 maps are missing, the first real/c.jpg.png"),
        (lambda lines: [*lines[:-1], '"real/a.jpg,0.5,,'], "cannot be read"),
    ],
)
def test_damaged_lists_are_refused(store, change, message):
    _rewrite(store, change)
    with pytest.raises(StoreError, match=message):
        PredictionStore(store)


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{", b"\xff", b'{"format_version": 99}', b'{"format_version": 1}']
)
def test_damaged_meta_is_refused(store, content):
    (store / "meta.json").unlink()
    if content is not None:
        (store / "meta.json").write_bytes(content)
    with pytest.raises(StoreError, match="meta.json"):
        PredictionStore(store)


def test_damaged_or_missing_maps_are_refused(store, tmp_path):
    path = map_path(store, "b.png")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match=r"forgery map of b\.png cannot be read"):
        PredictionStore(store).read_map("b.png")
    path.unlink()
    with pytest.raises(StoreError, match=r"1 maps are missing, the first b\.png"):
        PredictionStore(store)
    with pytest.raises(StoreError, match="no such folder"):
        PredictionStore(tmp_path / "absent")
    with pytest.raises(StoreError, match="no predictions.csv"):
        PredictionStore(tmp_path)


def test_an_unknown_image_is_refused(store):
    with pytest.raises(StoreError, match=r"no prediction for 'x\.png'"):
        PredictionStore(store).read_map("x.png")


def test_an_existing_store_is_kept_unless_told(store, tmp_path):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="already holds a prediction store"):
        PredictionStoreWriter(store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    (store / "metrics.json").write_text("{}")  # computed from what goes now
    with PredictionStoreWriter(store, overwrite=True) as writer:
        writer.add("c.png", 0.5, _map())
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
            writer.add("a.png", 0.5, _map())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not (tmp_path / "store" / "predictions.csv").exists()
    with pytest.raises(StoreError, match="interrupted"):
        PredictionStore(tmp_path / "store")
    with pytest.raises(StoreError, match="interrupted run"):
        PredictionStoreWriter(tmp_path / "store")
    with PredictionStoreWriter(tmp_path / "store", overwrite=True) as writer:
        writer.add("b.png", 0.5, _map())
    assert PredictionStore(tmp_path / "store").ids == ["b.png"]
    assert not map_path(tmp_path / "store", "a.png").exists()


_ENDLESS = """
import sys
import numpy as np
from ddl_d2.inference.store import PredictionStoreWriter
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
    writer.add("a.png", 0.5, _map())
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
            writer.add(f"{number}.png", number / 10, _map(number))
        writer.add("0.png", 0.0, _map(0))  # padding: all ranks repeat it

    assert _ranks(tmp_path / "store", 3, work) == [None] * 3
    reader = PredictionStore(tmp_path / "store")
    assert reader.ids == [f"{number}.png" for number in range(10)]
    assert reader.scores.tolist() == [number / 10 for number in range(10)]
    assert all((reader.read_map(f"{number}.png") == _map(number)).all() for number in range(10))
    assert not (tmp_path / "store" / ".parts").exists()
    errors = _ranks(tmp_path / "store", 3, work)
    assert all("already holds" in str(error) for error in errors)  # on every rank, so none waits for another


def test_a_rank_that_did_not_finish_leaves_no_store(tmp_path):
    def work(writer: PredictionStoreWriter, rank: int) -> None:
        writer.add(f"{rank}.png", 0.5, _map())
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
            writer.add("a.png", score, _map(), label=1, seconds=score)
    assert PredictionStore(tmp_path / "same").scores.tolist() == [0.5]
    writer = PredictionStoreWriter(tmp_path / "unlike")
    for score in (0.5, 0.6):
        writer.add("a.png", score, _map())
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
        writer.add("warm.png", 0.5, _map())
        tracemalloc.start()
        for number in range(300):
            writer.add(f"{number}.png", 0.5, np.full((100, 100), number % 256, np.uint8))
            if number == 49:
                early = tracemalloc.get_traced_memory()[0]
        late = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert late - early < 50_000  # 250 maps of 10 kB would be 2.5 MB
