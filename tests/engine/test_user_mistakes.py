"""What a user gets wrong about a training: one line that names the key or the folder, and says what to do."""

from __future__ import annotations

import shutil

import pytest

from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError, DatasetError
from tests.conftest import ROOT, TINY, make_tiny_set
from tests.ranks import on_ranks

CONFIG = ROOT / "configs/two_cores/swin_unet_efficientnet_lite0.yaml"
SMALL = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.MAX_ITER", "1",
    "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.CROP.SIZE", "[64, 64]",
    "INPUT.SELF_BLEND.ENABLED", "False",
    "DATASETS.TEST", "()",
    "TEST.EVAL_PERIOD", "0",
    "VIS_PERIOD", "0",
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    return make_tiny_set(tmp_path / "data")


def _trainer(data, *options):
    folders = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(data.parent / "output")]
    (data.parent / "output").mkdir(exist_ok=True)
    return ForgeryTrainer(load_config(CONFIG, [*SMALL, *folders, *map(str, options)]))


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("SOLVER.MAX_ITER", 0, 1),
        ("SOLVER.CHECKPOINT_PERIOD", 0, 1),
        ("SOLVER.MAX_TO_KEEP", 0, 1),
        ("SOLVER.IMS_PER_BATCH", 0, 1),
        ("SOLVER.BASE_LR", -1.0, 0),
        ("TEST.EVAL_PERIOD", -1, 0),
        ("DATALOADER.NUM_WORKERS", -1, 0),
    ],
)
def test_numbers_out_of_their_range(data, key, value, least):
    with pytest.raises(ConfigError, match=rf"^{key} is {value}: for a training it must be at least {least}$"):
        _trainer(data, key, value)


def test_a_batch_that_the_ranks_cannot_share(data):
    def work(rank):
        with pytest.raises(ConfigError) as caught:
            _trainer(data, "SOLVER.IMS_PER_BATCH", 3)
        return str(caught.value)

    assert on_ranks(work, 2) == ["SOLVER.IMS_PER_BATCH 3 is not a positive multiple of 2 processes"] * 2


def test_one_class_for_a_balanced_sampler(data):
    shutil.rmtree(data / "train/real")
    with pytest.raises(DatasetError, match='has 0 real and 4 fake. Use DATALOADER.SAMPLER_TRAIN "TrainingSampler", or'):
        _trainer(data)


def test_resuming_on_other_rows(data):
    trainer = _trainer(data)
    trainer.resume_or_load(resume=True)
    trainer.train()
    shutil.copy(data / "train/real/0.png", data / "train/real/9.png")
    with pytest.raises(
        DatasetError, match=r"size was 8, is now 9\. Resume with the same dataset .*, or start a new run"
    ):
        _trainer(data, "SOLVER.MAX_ITER", 2).resume_or_load(resume=True)


def test_a_folder_that_reads_as_a_number_in_yaml(tmp_path):
    hint = r"OUTPUT_DIR\. A name that reads as a number needs a folder before it \(\./20241128\), or in YAML quotes$"
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {CONFIG}\nOUTPUT_DIR: 2024_11_28\n")
    with pytest.raises(ConfigError, match=hint):
        load_config(config)
