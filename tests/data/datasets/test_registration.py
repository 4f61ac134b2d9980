"""Datasets under their names in Detectron2's catalogue, and the real ones."""

import os

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.datasets import load_dataset, register_all_ddl, register_datasets
from ddl_d2.errors import DatasetError
from tests.data.datasets.dataset_folders import rows_of, touch


def config(**values):
    cfg = get_cfg()
    add_ddl_config(cfg)
    for key, value in values.items():
        cfg.DATASETS[key] = value
    return cfg


def test_registration(tmp_path, monkeypatch):
    touch(tmp_path, "one/train/real/a.jpg", "two/x/train/real/b.jpg", "two/x/train/fake/c.jpg", "plain/d.png")
    (tmp_path / "list.json").write_text('[["plain/d.png", "Negative"]]')
    register_datasets(config(DDL_ROOT=str(tmp_path / "one")))
    assert set(rows_of(DatasetCatalog.get("ddl_i_train"))) == {"real/a.jpg"}
    assert "folder" not in DatasetCatalog
    register_datasets(
        config(
            DDL_ROOT=str(tmp_path / "two"),
            FOLDER_ROOT=str(tmp_path / "plain"),
            JSON_LIST=str(tmp_path / "list.json"),
            FAKE_WITHOUT_MASK="score",
        )
    )
    assert set(rows_of(DatasetCatalog.get("ddl_i_train"))) == {"real/b.jpg", "fake/c.jpg"}
    assert set(rows_of(DatasetCatalog.get("folder"))) == {"d.png"}
    assert rows_of(DatasetCatalog.get("json_list")) == {"plain/d.png": (0, None)}
    for name in ("ddl_i_train", "ddl_i_valid", "ddl_i_test", "folder", "json_list"):
        metadata = MetadataCatalog.get(name)
        assert (metadata.evaluator_type, metadata.thing_classes) == ("ddl", ["forged"])
    assert MetadataCatalog.get("ddl_i_train").dataset_root == str(tmp_path / "two")
    with pytest.raises(DatasetError, match="dataset ddl_i_valid: .*no valid split"):
        DatasetCatalog.get("ddl_i_valid")

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    register_datasets(config())
    assert "json_list" not in DatasetCatalog
    with pytest.raises(DatasetError, match="nowhere/ddl_i: no such"):
        DatasetCatalog.get("ddl_i_train")


def test_registration_touches_no_disk(monkeypatch):
    for name in ("stat", "scandir", "listdir"):
        monkeypatch.setattr(os, name, lambda *_, name=name: pytest.fail(f"os.{name} was called"))
    register_all_ddl("/somewhere")


def test_importing_registers(tmp_path):
    import ddl_d2  # noqa: F401

    assert {"ddl_i_train", "ddl_i_valid", "ddl_i_test"} <= set(DatasetCatalog.keys())


def test_oddities_are_logged_when_a_set_is_loaded(tmp_path, caplog):
    touch(tmp_path, "real/a.jpg", "fake/b.jpg")
    register_datasets(config(FOLDER_ROOT=str(tmp_path)))
    DatasetCatalog.get("folder")
    assert "1 fake images without a mask file (e.g. b.jpg)" in caplog.text


@pytest.mark.parametrize(
    ("name", "split", "real", "fake", "masks"),
    [
        ("dfdc_pairs", "train", 1505, 1505, 1505),
        ("dfdc_pairs", "valid", 302, 302, 302),
        ("casia_faces", None, 139, 189, 189),
        ("cocoglide", None, 40, 40, 40),
        ("stylegan2_vs_ffhq", "valid", 40, 40, 0),
    ],
)
def test_real_sets(shared, name, split, real, fake, masks):
    rows, _ = load_dataset(shared / "data" / name, split, fake_without_mask="score")
    assert ((rows.labels == 0).sum(), (rows.labels == 1).sum(), rows.has_mask.sum()) == (real, fake, masks)
    assert len({row["image_id"] for row in rows}) == real + fake
