"""A training that would learn nothing ends with a sentence; what cannot be used is counted in metrics.json."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from skimage import data as photographs

from ddl_d2.data import build, build_faces
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import DatasetError
from ddl_d2.io.bad_files import TooManyBadFilesError
from ddl_d2.io.image import write_png
from tests.conftest import ROOT, TINY, make_tiny_set, synthetic_face

CONFIG = ROOT / "configs/two_cores/swin_unet_efficientnet_lite0.yaml"
SMALL = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "INPUT.SELF_BLEND.ENABLED", "False",
    "DATASETS.TEST", "()", "TEST.EVAL_PERIOD", "0", "VIS_PERIOD", "0",
    "DATALOADER.SAMPLER_TRAIN", "TrainingSampler", "SEED", "0",
]  # fmt: skip
SELF_BLEND = ["INPUT.SELF_BLEND.ENABLED", "True"]
REPLACE = [*SELF_BLEND, "INPUT.SELF_BLEND.PAIRS", "False", "INPUT.SELF_BLEND.PROB", "0.5"]
FACE_SWAP = ["INPUT.FACE_SWAP.ENABLED", "True"]


class _FacesOfLargeImages:
    """Finds a face in the middle of an image of 512 × 512, and none in others."""

    def __call__(self, image):
        return [synthetic_face(center=(224.0, 115.0), width=95.0)] if image.shape[0] == 512 else []


def _train(data, *options):
    output = data.parent / "output"
    output.mkdir(exist_ok=True)
    folders = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output)]
    trainer = ForgeryTrainer(load_config(CONFIG, [*SMALL, *folders, *map(str, options)]))
    trainer.resume_or_load(resume=False)
    trainer.train()


def _last_line(data):
    return [json.loads(line) for line in (data.parent / "output/metrics.json").read_text().splitlines()][-1]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: _FacesOfLargeImages())
    return make_tiny_set(tmp_path / "data")


@pytest.fixture
def reals(data):
    shutil.rmtree(data / "train/fake")
    return data


@pytest.mark.parametrize("options", [SELF_BLEND, REPLACE, [*FACE_SWAP, "INPUT.FACE_SWAP.EIGEN_PROB", "0.0"]])
def test_no_face_anywhere(reals, options):
    with pytest.raises(TooManyBadFilesError, match=r"MAX_BAD_SHARE 0\.01 allows 0.*(no face is found|no face with 68)"):
        _train(reals, *options)
    assert _last_line(reals)["num_bad_files"] >= 1
    with pytest.raises(TooManyBadFilesError, match="none of 100 rows drawn for one training sample can be used"):
        _train(reals, *options, "DATALOADER.MAX_BAD_SHARE", 1.0)


def test_no_face_for_eigenfaces(reals):
    with pytest.raises(DatasetError, match="none of the 4 training images has a face with 68 landmarks: nothing to"):
        _train(reals, *FACE_SWAP)


@pytest.mark.parametrize("options", [SELF_BLEND, REPLACE])
def test_an_image_without_a_face_gives_way_to_one_with_a_face(reals, options):
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(reals / "train/real" / name), photographs.astronaut()[..., ::-1])
    cfg = load_config(CONFIG, [*SMALL, *options, "DATASETS.DDL_ROOT", str(reals), "DATALOADER.MAX_BAD_SHARE", "0.5"])
    loader = build.build_train_loader(cfg)
    batches = iter(loader)
    rows = [row for _ in range(12) for row in next(batches)]
    assert {row["image_id"].split("#")[0] for row in rows} == {"real/0.png", "real/1.png"}
    assert 0 < sum(row["is_fake"] for row in rows) < len(rows)
    assert len(loader.bad_files) == 2
    assert loader.bad_files.state_dict()[0][3].startswith("cannot be self-blended: no face is found")


def test_masks_that_mark_nothing(data):
    for path in (data / "train/masks").iterdir():
        mask = np.zeros((64, 80), np.uint8)
        mask[10:30, 20:50] = 2
        write_png(path, mask)
    with pytest.raises(TooManyBadFilesError, match=r"of the 8 rows .*its gray values are 0, 2, and forged is 128"):
        _train(data)
    assert "gray values are 0, 2" in _last_line(data)["bad_files"][0]["reason"]


def test_reals_only_and_nothing_that_forges(reals):
    with pytest.raises(DatasetError, match="all 4 images are real, and nothing forges any: there is nothing to learn"):
        _train(reals)
