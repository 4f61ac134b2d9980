"""A prediction store that is read: what was written comes back, nothing leaves its folder, damage is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.errors import StoreError
from ddl_d2.io.image import write_png
from ddl_d2.predictions.layout import CSV_COLUMNS, map_path
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.predictions.conftest import random_map


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
        assert (reader.read_map(image_id) == random_map(seed)).all()
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
            writer.add(name, 0.5, random_map(seed))
    reader = PredictionStore(tmp_path / "store")
    assert reader.ids == sorted(names)
    for seed, name in enumerate(names):
        assert (reader.read_map(name) == random_map(seed)).all()


BAD_IDS = ["", "/etc/passwd", "../a.png", "a/../../b.png", "a//b.png", "./a.png", "a/", "..", "C:/a.png", "a\\b.png"]


@pytest.mark.parametrize("image_id", [*BAD_IDS, "a\0b.png", "a\nb.png", "\udcff.png"])
def test_ids_cannot_leave_the_store(tmp_path, image_id):
    with PredictionStoreWriter(tmp_path / "in" / "store") as writer, pytest.raises(StoreError, match="image_id"):
        writer.add(image_id, 0.5, random_map())
    assert not list(tmp_path.rglob("*.png"))
    with pytest.raises(StoreError, match="image_id"):
        map_path(tmp_path, image_id)


@pytest.mark.parametrize("image_id", BAD_IDS)
def test_a_list_cannot_point_out_of_the_store(store, image_id):
    _rewrite(store, lambda lines: [*lines[:-1], f"{image_id},0.5,,"])
    with pytest.raises(StoreError, match="line 4: image_id"):
        PredictionStore(store)


def test_a_link_cannot_lead_out_of_the_store(store, tmp_path):
    write_png(tmp_path / "secret.png", random_map(9))
    map_path(store, "b.png").unlink()
    map_path(store, "b.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(StoreError, match="leaves the store"):
        PredictionStore(store).read_map("b.png")


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
