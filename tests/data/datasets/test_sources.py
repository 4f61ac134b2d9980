"""Sources: further sets by names of the user's, from a config to the draws of a loader."""

import os
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.build import build_train_loader, training_rows
from ddl_d2.data.datasets import load_config, register_datasets
from ddl_d2.data.datasets.sources import Source, parse_sources, weights_by_dataset
from ddl_d2.errors import ConfigError, DatasetError
from tests.data.datasets.dataset_folders import LAYOUT_A, ROWS_A, rows_of, touch


@pytest.fixture(autouse=True)
def no_sources_afterwards():
    yield
    register_datasets(config())


def config(sources=(), **values):
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.DATASETS.SOURCES = list(sources)
    for key, value in values.items():
        cfg.DATASETS[key] = value
    return cfg


def test_entries():
    assert parse_sources([]) == []
    assert parse_sources([["a", "/a", 2], ("b-1", "b")]) == [Source("a", "/a", 2.0), Source("b-1", "b", 1.0)]
    assert parse_sources([["a", "/a"]])[0].names == {"train": "a_train", "valid": "a_valid", "test": "a_test"}
    assert weights_by_dataset([["a", "/a", 0.25], ["b", "/b"]]) == {"a_train": 0.25, "b_train": 1.0}


@pytest.mark.parametrize(
    ("entries", "says"),
    [(["simswap"], r"SOURCES\[0\] is 'simswap'"), ([["a"]], r"list of \[name, root, weight\]"), ([["", "/a"]], "word"),
     ([["a b", "/a"]], "word"), ([[3, "/a"]], "word"), ([["a", ""]], "path of a folder"), ([["a", 5]], "path"),
     ([["a", "/a", 0]], "weight 0"), ([["a", "/a", -1.5]], "-1.5"), ([["a", "/a", "2"]], "weight '2'"),
     ([["a", "/a", True]], "True"), ([["a", "/a", float("nan")]], "nan"), ([["a", "/a", 1, 2]], "list of"),
     ([["a", "/a"], ["a", "/b"]], r"SOURCES\[1\]: the name a is given twice")],
)  # fmt: skip
def test_bad_entries(entries, says):
    with pytest.raises(ConfigError, match=says) as raised:
        parse_sources(entries)
    assert str(raised.value).startswith("DATASETS.SOURCES[")


def test_a_folder_with_splits_and_one_without(tmp_path):
    touch(tmp_path / "plain", *LAYOUT_A)
    touch(tmp_path / "fakes_only", "fake/a.png", "masks/a.png")
    touch(tmp_path / "whole", "x/train/fake/1.png", "x/train/masks/1.png", "x/val/real/2.png")
    roots = [[name, str(tmp_path / name)] for name in ("plain", "fakes_only", "whole")]
    register_datasets(config(roots))
    assert rows_of(DatasetCatalog.get("plain_train")) == ROWS_A
    assert rows_of(DatasetCatalog.get("fakes_only_train")) == {"fake/a.png": (1, "masks/a.png")}
    assert rows_of(DatasetCatalog.get("whole_train")) == {"fake/1.png": (1, "masks/1.png")}
    assert rows_of(DatasetCatalog.get("whole_valid")) == {"real/2.png": (0, None)}
    with pytest.raises(DatasetError, match="dataset plain_valid: .*no valid split"):
        DatasetCatalog.get("plain_valid")
    register_datasets(config([["gone", str(tmp_path / "gone")]]))  # the last config wins
    assert "plain_train" not in DatasetCatalog
    with pytest.raises(DatasetError, match=r"dataset gone_train: .*no such folder \(DATASETS\.SOURCES, gone\)"):
        DatasetCatalog.get("gone_train")


def test_registering_touches_no_disk(monkeypatch):
    for name in ("stat", "scandir", "listdir"):
        monkeypatch.setattr(os, name, lambda *_, name=name: pytest.fail(f"os.{name} was called"))
    register_datasets(config([["a", "/somewhere"]]))


@pytest.mark.parametrize("name", ["ddl_i", "ff", "deepfakebench", "coco_2017"])
def test_names_that_are_taken(name):
    with pytest.raises(ConfigError, match=f"DATASETS.SOURCES: {name} would be registered as {name}_"):
        register_datasets(config([[name, "/x"]]))


def test_a_config_file_and_the_command_line(tmp_path):
    """Registered by the one way in, twice in a row; names may be reused by the next config."""
    path = tmp_path / "c.yaml"
    path.write_text('DATASETS:\n  SOURCES:\n    - ["simswap", "/data/simswap", 2.0]\n    - ["belm", "/data/belm"]\n')
    for _ in range(2):
        cfg = load_config(path)
        assert cfg.DATASETS.SOURCES == [["simswap", "/data/simswap", 2.0], ["belm", "/data/belm"]]
        assert {"simswap_train", "belm_test"} <= set(DatasetCatalog.keys())
    cfg = load_config(path, ["DATASETS.SOURCES", '[["sd", "/data/sd", 0.5]]'])
    assert weights_by_dataset(cfg.DATASETS.SOURCES) == {"sd_train": 0.5}
    assert "simswap_train" not in DatasetCatalog
    with pytest.raises(ConfigError, match=r"DATASETS\.SOURCES\[0\]"):
        load_config(path, ["DATASETS.SOURCES", '["sd", "/data/sd"]'])


@pytest.fixture
def three_sets(tmp_path):
    """DDL-I: 8 reals and 8 fakes. Two sources: 4 fakes; 2 reals and 8 fakes."""
    names = [f"train/{kind}/{i}.png" for kind in ("real", "fake", "masks") for i in range(8)]
    touch(tmp_path / "ddl", *names)
    touch(tmp_path / "one", *[f"{kind}/{i}.png" for kind in ("fake", "masks") for i in range(4)])
    touch(tmp_path / "two", "real/0.png", "real/1.png", *[name.removeprefix("train/") for name in names[8:]])
    cfg = config([["one", str(tmp_path / "one"), 2.0], ["two", str(tmp_path / "two"), 0.5]],
                 DDL_ROOT=str(tmp_path / "ddl"), TRAIN=("ddl_i_train", "one_train", "two_train"))  # fmt: skip
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 2, 0, 3
    cfg.DATALOADER.SAMPLER_TRAIN = "ClassBalancedSampler"
    register_datasets(cfg)
    return cfg


def source_of(row):
    return "one" if "/one/" in row["file_name"] else "two" if "/two/" in row["file_name"] else "ddl"


def test_rows_and_weights_of_several_sets(three_sets):
    rows, weights = training_rows(three_sets)
    assert Counter(source_of(rows[i]) for i in range(len(rows))) == {"ddl": 16, "one": 4, "two": 10}
    assert [weights[i] for i in (0, 15, 16, 19, 20, 29)] == [1.0, 1.0, 2.0, 2.0, 0.5, 0.5]


def test_a_loader_draws_sources_by_weight_and_resumes(three_sets):
    """Fakes: 8 of weight 1, 4 of 2, 8 of .5: 8, 8 and 4 of 20. Reals: 8 of weight 1, 2 of .5: 8 and 1 of 9.

    A pass holds 4, 4 and 2 fakes (relative to weight 2) and 8 and 1 reals (relative to weight 1).
    """
    loader = build_train_loader(three_sets, mapper=dict)
    batches = list(islice(loader, 90))  # nine passes of 10 fakes, ten of 9 reals
    for batch in batches:
        assert sorted(row["is_fake"] for row in batch) == [0, 1]
    drawn = Counter((row["is_fake"], source_of(row)) for batch in batches for row in batch)
    assert {key: drawn[key] for key in drawn if key[0] == 1} == {(1, "ddl"): 36, (1, "one"): 36, (1, "two"): 18}
    assert {key: drawn[key] for key in drawn if key[0] == 0} == {(0, "ddl"): 80, (0, "two"): 10}
    first = build_train_loader(three_sets, mapper=dict)
    next(islice(first, 36, None))
    again = build_train_loader(three_sets, mapper=dict)
    again.load_state_dict(first.state_dict())
    assert [[r["file_name"] for r in b] for b in islice(again, 20)] == [
        [r["file_name"] for r in b] for b in batches[37:57]
    ]
    three_sets.DATASETS.SOURCES[0][2] = 3.0
    with pytest.raises(ValueError, match="weights of their sources"):
        build_train_loader(three_sets, mapper=dict).load_state_dict(first.state_dict())


def test_without_weights_the_draws_are_those_of_a_plain_set(three_sets):
    three_sets.DATASETS.TRAIN = ("ddl_i_train",)
    loader = build_train_loader(three_sets, mapper=dict)
    assert "weights" not in loader.state_dict()
    assert not np.ptp(loader.sampler.weights)


def test_self_blended_pairs_keep_the_weights_of_the_real_images(three_sets):
    three_sets.INPUT.SELF_BLEND.ENABLED = True
    three_sets.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    loader = build_train_loader(three_sets, mapper=dict)
    assert loader.sampler.weights.tolist() == [1.0] * 8 + [0.5] * 2
