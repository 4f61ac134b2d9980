"""The rows of a dataset in memory, and the index of it on disk."""

import json
import logging
import os
import pickle

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from ddl_d2.cli import check_dataset
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.datasets import DatasetColumns, index_cache, load_dataset, load_folder, register_datasets
from ddl_d2.errors import SaveError
from tests.data.datasets.dataset_folders import LAYOUT_A, ROWS_A, age, rows_of, touch

# Columns.


def columns(count=7):
    names = [f"n{i:03}é.png" for i in range(count)]
    masks = [f"m{i}.png" if i % 3 == 1 else "" for i in range(count)]
    return DatasetColumns.from_lists("/r", names, [i % 3 - 1 for i in range(count)], masks)


def test_columns_are_a_sequence():
    rows = columns()
    assert len(rows) == 7
    assert rows[1] == {
        "file_name": "/r/n001é.png",
        "image_id": "n001é.png",
        "is_fake": 0,
        "mask_file_name": "/r/m1.png",
    }
    assert rows[0] == {"file_name": "/r/n000é.png", "image_id": "n000é.png"}
    assert rows[-1] == rows[6] == rows[np.int64(6)]
    assert [row["image_id"] for row in rows[1:6:2]] == ["n001é.png", "n003é.png", "n005é.png"]
    assert rows[1:6:2].labels.tolist() == [0, -1, 1]
    assert rows[1:].select([3, 0])[0] == rows[4]
    assert rows.has_mask.tolist() == [False, True, False, False, True, False, False]
    assert len(list(rows)) == 7
    with pytest.raises(IndexError):
        rows[7]
    rows[1]["is_fake"] = 5  # a row is a copy
    assert rows[1]["is_fake"] == 0


def test_columns_pickle_and_empty():
    rows = columns()[2:]
    again = pickle.loads(pickle.dumps(rows))
    assert list(again) == list(rows)
    assert again.root == "/r"
    assert list(columns(0)) == []
    assert len(pickle.dumps(columns(1000))) < 60_000


def test_columns_refuse_uneven_lists():
    with pytest.raises(ValueError, match="one length"):
        DatasetColumns.from_lists("/r", ["a"], [0, 1], [""])


# The index cache.


def test_the_index_is_used_until_something_changes(tmp_path, cache, monkeypatch):
    touch(tmp_path, *LAYOUT_A, "fake/bare.jpg")
    age(tmp_path)
    first, report = load_dataset(tmp_path)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr("ddl_d2.data.datasets.listing.os.scandir", lambda _: pytest.fail("listed again"))
        second, again = load_folder(str(tmp_path))
    assert list(second) == list(first)
    assert again.to_dict() == report.to_dict()
    assert len(load_dataset(tmp_path, fake_without_mask="score")[0]) == len(first) + 1  # another key
    touch(tmp_path, "real/new.jpg")
    assert len(load_dataset(tmp_path)[0]) == len(first) + 1


def test_a_fresh_folder_is_not_kept(tmp_path, cache):
    touch(tmp_path, *LAYOUT_A)
    load_dataset(tmp_path)
    assert not list(cache.iterdir())


def test_labels_and_lists_are_watched(tmp_path):
    touch(tmp_path, "set/imgs/a.png", "list/b.png")
    labels, listed = tmp_path / "set" / "labels.txt", tmp_path / "list" / "l.json"
    for number, (label, mask) in enumerate(((0, "Negative"), (1, "gone.png"))):
        labels.write_text(f"a.png,{label}\n")
        listed.write_text(json.dumps([["b.png", mask]]))
        age(tmp_path)
        for path in (labels, listed):
            os.utime(path, (10_000 + number, 10_000 + number))
        assert load_dataset(tmp_path / "set", fake_without_mask="score")[0][0]["is_fake"] == label
        assert load_dataset(listed, fake_without_mask="score")[0][0]["is_fake"] == label


def test_lists_that_change_within_their_time_of_change(tmp_path):
    touch(tmp_path, "set/imgs/a.png", "list/b.png")
    labels, listed = tmp_path / "set" / "labels.txt", tmp_path / "list" / "l.json"
    for label, mask in ((0, "Negative"), (1, "missing.png")):
        labels.write_text(f"a.png,{label}\n" + "\n" * label)
        listed.write_text(json.dumps([["b.png", mask]]))
        for path in (labels, listed, labels.parent, listed.parent, labels.parent / "imgs"):
            os.utime(path, (10_000, 10_000))
        assert load_dataset(tmp_path / "set", fake_without_mask="score")[0][0]["is_fake"] == label
        assert load_dataset(listed, fake_without_mask="score")[0][0]["is_fake"] == label


# What is made later, of each layout -> the rows with it.
LATER = {
    "masks": (("real/a.jpg", "fake/b.jpg"), "masks/b.png", "fake/b.jpg"),
    "the other class": (("real/a.jpg",), "fake/b.jpg", "fake/b.jpg"),
    "authentic images": (("Tp/b.jpg", "Gt/b.png"), "Au/a.jpg", "Au/a.jpg"),
    "a folder of images": (("a.jpg",), "imgs/c.jpg", "imgs/c.jpg"),
}


@pytest.mark.parametrize("what", LATER)
def test_folders_that_come_later_are_noticed(tmp_path, what):
    names, later, image_id = LATER[what]
    touch(tmp_path, *names)
    age(tmp_path)
    load_dataset(tmp_path, fake_without_mask="score")
    touch(tmp_path, later)
    age(tmp_path)
    rows = rows_of(load_dataset(tmp_path, fake_without_mask="score")[0])
    assert image_id in rows
    assert what != "masks" or rows[image_id] == (1, later)


def test_a_listed_folder_that_comes_later_is_noticed(tmp_path):
    touch(tmp_path, "a.png", "list.json")
    (tmp_path / "list.json").write_text('[["a.png", "Negative"], ["later/b.png", "Negative"]]')
    age(tmp_path)
    os.utime(tmp_path / "list.json", (10_000, 10_000))
    assert load_dataset(tmp_path / "list.json")[1].counts == {"missing_file": 1}
    touch(tmp_path, "later/b.png")
    assert len(load_dataset(tmp_path / "list.json")[0]) == 2


def test_the_index_says_that_it_is_used(tmp_path, cache, capsys, caplog):
    touch(tmp_path / "set", *LAYOUT_A)
    age(tmp_path / "set")
    assert load_dataset(tmp_path / "set")[1].origin == ""
    (file,) = cache.iterdir()
    said = f"from the index, drop it with: rm {file}"
    assert load_dataset(tmp_path / "set")[1].origin == said
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.DATASETS.FOLDER_ROOT = str(tmp_path / "set")
    register_datasets(cfg)
    with caplog.at_level(logging.INFO):
        DatasetCatalog.get("folder")
        DatasetCatalog.get("folder")
    assert said.split(str(cache))[0] in caplog.messages[-1]
    check_dataset.main([str(tmp_path / "set")])
    check_dataset.main([str(tmp_path / "set")])
    assert "from the index, drop it with: rm " in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nonsense", None])
def test_a_damaged_index_is_made_anew(tmp_path, cache, caplog, damage):
    touch(tmp_path, *LAYOUT_A)
    age(tmp_path)
    load_dataset(tmp_path)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert rows_of(load_dataset(tmp_path)[0]) == ROWS_A
    assert "not a usable dataset index" in caplog.text
    caplog.clear()
    assert rows_of(load_dataset(tmp_path)[0]) == ROWS_A
    assert not caplog.text


def test_an_index_never_runs_code(tmp_path, cache):
    touch(tmp_path, *LAYOUT_A)
    age(tmp_path)
    load_dataset(tmp_path)
    (file,) = cache.iterdir()
    np.savez(file, meta=np.array([{"a": 1}], dtype=object))
    assert rows_of(load_dataset(tmp_path)[0]) == ROWS_A


def test_an_unwritable_cache_is_said_once(tmp_path, monkeypatch, caplog):
    touch(tmp_path, "data/real/a.jpg", "file")
    age(tmp_path / "data")
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(3):
        assert len(load_dataset(tmp_path / "data")[0]) == 1
    assert caplog.text.count("cannot be kept") == 1


def test_without_any_folder_datasets_are_listed_anew(tmp_path, monkeypatch, caplog):
    def nowhere(kind: str):
        raise SaveError("/tmp/ddl_d2-1 is not a folder of this user")

    touch(tmp_path, "real/a.jpg")
    age(tmp_path)
    monkeypatch.setattr(index_cache, "cache_folder", nowhere)
    for _ in range(2):
        assert len(load_dataset(tmp_path)[0]) == 1
    assert caplog.text.count("not a folder of this user") == 1
