import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from ddl_d2.data.build import dataset_labels, test_rows
from ddl_d2.data.datasets import load_config
from ddl_d2.data.datasets.columns import DatasetColumns, FrameColumns
from ddl_d2.data.subset import subset_of
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError
from tests.conftest import ROOT, TINY

test_rows.__test__ = False  # it is no test


def _columns(real, fake):
    names = [f"{i:04d}.png" for i in range(real + fake)]
    return DatasetColumns.from_lists("/data", names, [0] * real + [1] * fake, [""] * len(names))


def test_each_class_has_its_share_and_every_call_the_same_rows():
    rows = _columns(300, 700)
    part = rows.select(subset_of(rows, rows.labels, 100))
    assert len(part) == 100
    assert int((part.labels == 1).sum()) == 70
    names = [row["image_id"] for row in part]
    assert names == sorted(names)
    again = rows.select(subset_of(_columns(300, 700), rows.labels, 100))
    assert [row["image_id"] for row in again] == names
    # Not the first ones: the middle of 300 random positions lies far from 15.
    assert np.median([int(name[:4]) for name in names[:30]]) > 60


def test_a_small_dataset_is_whole():
    rows = _columns(2, 3)
    assert subset_of(rows, rows.labels, 5) is None
    assert subset_of(rows, rows.labels, 0) is None


def test_a_rare_class_is_not_lost():
    rows = _columns(1, 999)
    assert sorted(set(rows.labels[subset_of(rows, rows.labels, 10)])) == [0, 1]


@pytest.mark.parametrize("as_list", [False, True])
def test_videos_are_whole(as_list):
    # 10 videos of 8 frames, half of them fake. Of half of the frames, 20 of each class, 2 whole videos have room.
    files = DatasetColumns.from_lists("/data", [f"{v}.mp4" for v in range(10)], [v % 2 for v in range(10)], [""] * 10)
    video = np.repeat(np.arange(10), 8)
    rows = FrameColumns.from_files(
        files,
        file_of_row=video,
        frame_of_row=np.tile(np.arange(8), 10),
        video_of_row=video,
        video_ids=[f"{v}.mp4" for v in range(10)],
        forgery_types=[""] * 10,
    )
    labels = rows.labels
    part = [rows[int(i)] for i in subset_of(list(rows) if as_list else rows, labels, 40)]
    frames = {name: sum(row["video_id"] == name for row in part) for name in {row["video_id"] for row in part}}
    assert set(frames.values()) == {8}
    assert len(frames) == 4
    assert sum(row["is_fake"] for row in part) == 16


def _config(data, output, *opts):
    path = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
    fixed = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output), "SEED", "1", "SOLVER.IMS_PER_BATCH", "2"]
    sizes = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "SOLVER.MAX_ITER", "2"]
    test = ["DATASETS.TEST", "('ddl_i_valid',)", "INPUT.MIN_SIZE_TEST", "64", "TEST.EVAL_PERIOD", "1"]
    return load_config(path, [*TINY, *fixed, *sizes, *test, *opts])


def test_evaluations_of_a_training_say_that_they_see_a_part(tiny_set, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ddl_d2")
    trainer = ForgeryTrainer(_config(tiny_set, tmp_path, "TEST.MAX_IMAGES", "4"))
    logging.getLogger("ddl_d2").propagate = True
    trainer.train()
    results = trainer._last_eval_results["ddl"]
    assert (results["num_images"], results["num_fake"], results["num_in_dataset"]) == (4, 2, 6)
    assert trainer.storage.latest()["ddl/num_in_dataset"][0] == 6
    metrics = (tmp_path / "inference/ddl_i_valid/metrics.json").read_text()
    assert '"num_in_dataset": 6' in metrics
    assert "Evaluation of 4 images, a part of the dataset's 6" in caplog.text


def test_without_the_key_nothing_is_said_of_parts(tiny_set, tmp_path):
    cfg = _config(tiny_set, tmp_path, "SOLVER.MAX_ITER", "1")
    trainer = ForgeryTrainer(cfg)
    trainer.train()
    assert trainer._last_eval_results["ddl"]["num_images"] == 6
    assert "num_in_dataset" not in trainer._last_eval_results["ddl"]
    with pytest.raises(ConfigError, match=r"TEST\.MAX_IMAGES is -1"):
        _config(tiny_set, tmp_path, "TEST.MAX_IMAGES", "-1")


def test_rows_of_a_config(tiny_set, tmp_path):
    cfg = _config(tiny_set, tmp_path, "TEST.MAX_IMAGES", "2")
    rows = test_rows(cfg, "ddl_i_valid")
    assert sorted(dataset_labels(rows)) == [0, 1]
    assert len(DatasetCatalog.get("ddl_i_valid")) == 6
