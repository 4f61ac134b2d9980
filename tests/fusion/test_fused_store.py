"""A fused store appears whole or not at all, whatever lay there before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddl_d2.errors import StoreError
from ddl_d2.fusion import align_stores, average_maps
from ddl_d2.fusion.fused_store import write_fused_store
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.fusion.small_stores import write_store

IDS = [f"{'real' if index % 2 else 'fake'}/{index:03}.png" for index in range(200)]


@pytest.fixture
def systems(tmp_path):
    rng = np.random.default_rng(0)
    stores = []
    for name in "ab":
        maps = {image_id: rng.integers(0, 256, (3, 5), dtype=np.uint8) for image_id in IDS}
        labels = {IDS[0]: 1} if name == "b" else {}
        stores.append(write_store(tmp_path / name, {image_id: float(rng.random()) for image_id in IDS}, maps, labels))
    return align_stores(stores)


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _fuse(maps):
    return average_maps(maps, (1, 1))


def _write(output, systems, fuse=_fuse, **options) -> int:
    scores = systems.scores.mean(axis=0)
    return write_fused_store(output, systems, scores, systems.stores, fuse, meta={"note": "fused"}, **options)


def _spoilt(maps):
    raise StoreError("a map that cannot be read")


def test_what_is_written(systems, tmp_path):
    assert _write(tmp_path / "new/fused", systems) == 0
    fused = PredictionStore(tmp_path / "new/fused")
    assert fused.ids == sorted(IDS)
    assert fused.scores.tolist() == systems.scores.mean(axis=0).tolist()
    labels = dict(zip(fused.ids, fused.labels.tolist(), strict=True))
    assert labels == {**dict.fromkeys(IDS, -1), IDS[0]: 1}
    for image_id in IDS[::50]:
        first, second = (store.read_map(image_id) for store in systems.stores)
        assert (fused.read_map(image_id) == average_maps([first, second], (1, 1))).all()
    assert fused.meta["note"] == "fused"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fused"]


def test_without_maps(systems, tmp_path):
    write_fused_store(tmp_path / "fused", systems, systems.scores[0], [], _spoilt, meta={})
    fused = PredictionStore(tmp_path / "fused")
    assert (fused.has_maps, fused.scores.tolist()) == (False, systems.scores[0].tolist())


def test_threads_do_not_change_a_byte(systems, tmp_path):
    for workers in (1, 2, 5):
        _write(tmp_path / str(workers), systems, workers=workers)
    assert _snapshot(tmp_path / "1") == _snapshot(tmp_path / "2") == _snapshot(tmp_path / "5")


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_leaves_everything_as_it_was(systems, tmp_path, workers):
    output = tmp_path / "out"
    with pytest.raises(StoreError, match="cannot be read"):
        _write(output, systems, _spoilt, workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    _write(output, systems)
    before = _snapshot(output)
    with pytest.raises(StoreError, match="cannot be read"):
        _write(output, systems, _spoilt, overwrite=True, workers=workers)
    assert _snapshot(output) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


def test_overwriting(systems, tmp_path):
    output = tmp_path / "out"
    write_store(output, {"old.png": 0.5}, {"old.png": [[1]]})
    (output / "metrics.json").write_text("{}")
    before = _snapshot(output)
    with pytest.raises(StoreError, match=r"out is in use: .*--overwrite"):
        _write(output, systems)
    assert _snapshot(output) == before
    _write(output, systems, overwrite=True)
    assert PredictionStore(output).ids == systems.ids
    assert not (output / "metrics.json").exists()  # they were the old store's
    assert not (output / "maps/old.png.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


def test_what_an_interrupted_run_left_can_be_overwritten(systems, tmp_path):
    writer = PredictionStoreWriter(tmp_path / "out")
    writer.add("x.png", 0.5)
    writer.abort()
    _write(tmp_path / "out", systems, overwrite=True)
    assert PredictionStore(tmp_path / "out").ids == systems.ids


def test_what_is_never_replaced(systems, tmp_path):
    output = tmp_path / "out"
    write_store(output, {"old.png": 0.5})
    (output / "notes.txt").write_text("mine")
    before = _snapshot(output)
    with pytest.raises(StoreError, match=r"more than a prediction store \(notes\.txt\)"):
        _write(output, systems, overwrite=True)
    assert _snapshot(output) == before
    with pytest.raises(StoreError, match="is not a folder"):
        _write(output / "notes.txt", systems, overwrite=True)
    with pytest.raises(StoreError, match="is one of the stores to fuse"):
        _write(tmp_path / "b" / ".." / "a", systems, overwrite=True)
    assert PredictionStore(tmp_path / "a").ids == systems.ids


def test_an_empty_folder_is_free(systems, tmp_path):
    (tmp_path / "out").mkdir()
    _write(tmp_path / "out", systems)
    assert len(PredictionStore(tmp_path / "out")) == len(IDS)
