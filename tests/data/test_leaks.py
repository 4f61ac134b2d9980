"""No trivial statistic tells the real half of a training set from the half that is forged on the way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as photographs

from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions
from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.data.face_swap_mapper import FaceSwapMapper
from ddl_d2.data.loader import TrainStream
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.data.self_blending_mapper import ReplaceWithSelfBlended, SelfBlender, SelfBlendingMapper
from ddl_d2.evaluation.functional.detection import roc_auc
from tests.conftest import synthetic_face

SAMPLES = 160


def _finder(image):
    return [synthetic_face(center=(224.0, 115.0), width=95.0)]


def _pairs(options):
    mapper = ForgeryDatasetMapper(True, augmentations=[])
    return SelfBlendingMapper(mapper, SelfBlender(_finder, options), crop_margin=(0.3, 0.5), post=PostOptions())


MAPPERS = {
    "pairs": lambda: _pairs(ForgeryOptions()),
    "pairs, the appearance of both": lambda: _pairs(ForgeryOptions(appearance_weights=(0.0, 0.0, 1.0))),
    "a share is replaced": lambda: ForgeryDatasetMapper(
        True, augmentations=[], forge=ReplaceWithSelfBlended(SelfBlender(_finder, ForgeryOptions()), 0.5)
    ),
    "face swaps": lambda: FaceSwapMapper(_finder, SwapOptions(size=128, eigen_prob=0.0), max_pixels=10**6),
}


def _corners(image: np.ndarray) -> np.ndarray:
    """The four corners of an image, where no face is, one under the other."""
    side = max(8, min(image.shape[:2]) // 10)
    return np.concatenate([image[rows, columns] for rows in _ends(side) for columns in _ends(side)])


def _ends(side: int) -> tuple[slice, slice]:
    return slice(0, side), slice(-side, None)


STATISTICS = {
    "brightness": lambda part: part.mean(),
    "red against blue": lambda part: part[..., 0].mean() - part[..., 2].mean(),
    "saturation": lambda part: cv2.cvtColor(part, cv2.COLOR_RGB2HSV)[..., 1].mean(),
    "contrast": lambda part: part.std(),
    "sharpness": lambda part: cv2.Laplacian(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var(),
    "size as PNG": lambda part: len(cv2.imencode(".png", part)[1]),
}


@pytest.fixture(scope="module")
def row(tmp_path_factory) -> dict:
    path: Path = tmp_path_factory.mktemp("leaks") / "astronaut.png"
    cv2.imwrite(str(path), photographs.astronaut()[..., ::-1])
    return {"file_name": str(path), "image_id": "astronaut.png", "is_fake": 0}


@pytest.mark.parametrize("mode", MAPPERS)
def test_the_background_does_not_tell_the_halves_apart(row, mode):
    """Neither by a statistic nor by how unusual it is, for a change in either direction."""
    stream = iter(TrainStream([row], mapper=MAPPERS[mode](), sampler=TrainingSampler(1, seed=0), batch_size=2))
    mapped = [next(stream) for _ in range(SAMPLES)]
    labels = np.array([sample["is_fake"] for sample in mapped])
    assert 0.35 < labels.mean() < 0.65
    parts = [_corners(sample["image"].permute(1, 2, 0).contiguous().numpy()) for sample in mapped]
    for name, statistic in STATISTICS.items():
        values = np.array([statistic(part) for part in parts], dtype=float)
        unusual = np.abs(values - np.median(values))
        for scores in (values, unusual):
            assert abs(roc_auc(labels, scores) - 0.5) <= 0.05, (name, roc_auc(labels, scores))
