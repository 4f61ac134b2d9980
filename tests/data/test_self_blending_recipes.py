"""The recipes of system S3: what happens to a pair after the blend, and how large the faces are that a network sees."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.data.build import build_train_mapper
from ddl_d2.data.build_faces import build_face_crop, build_face_finder
from ddl_d2.data.datasets import VideoOptions, load_config, load_dataset
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.transforms.build import build_augmentations
from ddl_d2.data.transforms.degradations import JpegRecompress
from ddl_d2.data.transforms.photometric import PhotometricDistortion
from tests.conftest import CONFIGS, ROOT

PAIRS = [
    str(path.relative_to(ROOT / "configs"))
    for path in CONFIGS
    if (blend := load_config(path).INPUT.SELF_BLEND).ENABLED and blend.PAIRS
]


@pytest.mark.parametrize("name", PAIRS)
def test_colors_change_and_are_compressed_once(name):
    """By SELF_BLEND.POST: a quarter of the pairs was compressed twice, and all of them were distorted twice."""
    cfg = load_config(ROOT / "configs" / name)
    assert cfg.INPUT.SELF_BLEND.POST.ENABLED
    kinds = {type(step) for step in build_augmentations(cfg, is_train=True)}
    assert not kinds & {JpegRecompress, PhotometricDistortion}


def test_the_recipes_are_known():
    assert "two_cores/swin_unet_self_blending.yaml" in PAIRS
    assert sum(name.startswith("ff/") for name in PAIRS) == 7


def test_the_other_network_of_two_cores_keeps_its_distortion():
    steps = build_augmentations(load_config("two_cores/swin_unet_efficientnet_lite0"), is_train=True)
    assert {JpegRecompress, PhotometricDistortion} <= {type(step) for step in steps}


@pytest.mark.parametrize("name", [name for name in PAIRS if name.startswith("ff/")])
def test_faces_are_shown_in_testing_too(name):
    """As a network trained on face crops must see them: whole frames had faces of 36 pixels at 224."""
    inputs = load_config(name).INPUT
    assert inputs.FACE_CROP.ENABLED
    assert inputs.FACE_CROP.MARGIN == 0.14
    assert inputs.SELF_BLEND.APPEARANCE_WEIGHTS == [1.0, 1.0, 1.0]


def test_faces_are_as_large_in_testing_as_in_training(shared, needs_dlib):
    cfg = load_config("ff/swin_unet_swin_tiny")
    videos = VideoOptions(frames_per_video=3)
    rows, _ = load_dataset(shared / "data/faceforensics_sample", None, video=videos)
    rows = [row for row in rows if not row["is_fake"]]
    finder = build_face_finder(cfg)

    def widths(image):
        return [face.width for face in finder(np.ascontiguousarray(image.permute(1, 2, 0)))]

    train, test = build_train_mapper(cfg), ForgeryDatasetMapper(cfg, False, crop=build_face_crop(cfg, False))
    np.random.seed(0)
    trained = [width for row in rows for _ in range(4) for width in widths(train(row)[0]["image"])]
    tested = [width for row in rows for crop in test(row)["crops"] for width in widths(crop["image"])]
    assert len(trained) >= 15
    assert len(tested) >= 4
    assert np.median(tested) == pytest.approx(np.median(trained), rel=0.12)
    assert np.median(tested) > 130
