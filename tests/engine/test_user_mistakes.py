"""What a user gets wrong about a training: one line that names the key or the folder, and says what to do."""

from __future__ import annotations

import re
import shutil

import pytest

from ddl_d2.cli import train as train_command
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


def test_a_folder_that_reads_as_a_number(tmp_path):
    assert load_config(CONFIG, ["OUTPUT_DIR", "2024_11_28"]).OUTPUT_DIR == "2024_11_28"
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {CONFIG}\nOUTPUT_DIR: 2024_11_28\n")
    with pytest.raises(ConfigError, match=r"needs a folder before it \(\./20241128\), or in YAML quotes$"):
        load_config(config)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["DATASETS.TRAIN", "('nosuch',)"], r"dataset 'nosuch' \(DATASETS.TRAIN or TEST\) is not registered: `ddl-d2"),
        (["DATASETS.TEST", "('nosuch',)"], "dataset 'nosuch' "),
        (["DATASETS.TRAIN", "('ddl_i_trian',)"], "'ddl_i_trian' .*: did you mean ddl_i_train"),
        (["DATASETS.TRAIN", "('ff_train',)"], "'ff_train' is not registered: set DATASETS.FF_ROOT to where it lies"),
        (["DATASETS.TRAIN", "ddl_i_train"], r"A list of one name is written \"\('name',\)\", with its quotes"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty: nothing to train on"),
        (["OUTPUT_DIR", ""], "OUTPUT_DIR is empty: name a folder"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE is 'gpu': it must be cpu, cuda or"),
        (["MODEL.META_ARCHITECTURE", "Nope"], "No object named 'Nope' found in 'META_ARCH' registry"),
        (["MODEL.BACKBONE.NAME", "nope"], "No object named 'nope' found in 'BACKBONE' registry"),
        (["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "nope"], "CLIP_TYPE is 'nope': it must be one of full_model, value, norm"),
        (["SOLVER.EMA.DECAY", "1.0"], "SOLVER.EMA.DECAY is 1.0: it must be from 0 up to, but not, 1"),
        (["TEST.BATCH_SIZE", "0"], "TEST.BATCH_SIZE is 0: it must be at least 1"),
        (["INPUT.CROP.SIZE", "[0, 0]"], r"INPUT.CROP.SIZE is \[0, 0\]: it must be a height and a width"),
        (["INPUT.MIN_SIZE_TRAIN", "()"], "INPUT.MIN_SIZE_TRAIN is empty: it must hold at least one size"),
        (["INPUT.JPEG_QUALITY", "[90, 10]"], r"INPUT.JPEG_QUALITY is \[90, 10\]: it must be \[smallest, largest\]"),
        (["ENGINE.STOP_GRACE", "-1"], "ENGINE.STOP_GRACE is -1: for a training it must be at least 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_command_line_says_it_in_one_line(data, options, said, capfd):
    words = [
        "--config-file",
        str(CONFIG),
        *SMALL,
        "DATASETS.DDL_ROOT",
        str(data),
        "OUTPUT_DIR",
        str(data.parent / "out"),
    ]
    with pytest.raises(SystemExit, match="2"):
        train_command.main([*words, *options])
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(said, errors[0])


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("Real", "Fake"), "must be in small letters; rename Real/ to real/, Fake/ to fake/"),
        (
            ("x", "y"),
            r"8 of 8 images have no real/fake label, which training needs: put them into folders real/ and",
        ),
    ],
)
def test_no_labels(data, names, hint):
    folder = data.parent / "photos"
    for kind, name in zip(("real", "fake"), names, strict=True):
        shutil.copytree(data / "train" / kind, folder / name)
    with pytest.raises(DatasetError, match=hint):
        _trainer(data, "DATASETS.FOLDER_ROOT", folder, "DATASETS.TRAIN", "('folder',)")
