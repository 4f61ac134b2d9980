from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data as photographs

from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.data.face_swap_mapper import FaceSwapMapper, build_face_swap_mapper, swap_options
from ddl_d2.errors import ConfigError, ImageReadError
from ddl_d2.forging.face_autoencoder import FaceAutoencoder
from tests.conftest import synthetic_face


class _Finder:
    """Always the same faces."""

    def __init__(self, *faces):
        self.settings = {"name": "test"}
        self.faces, self.calls = list(faces), 0

    def __call__(self, image):
        self.calls += 1
        return self.faces


@pytest.fixture
def row(tmp_path: Path) -> dict:
    path = tmp_path / "astronaut.png"
    cv2.imwrite(str(path), photographs.astronaut()[..., ::-1])
    return {"file_name": str(path), "image_id": "astronaut.png"}


@pytest.fixture
def face():
    return synthetic_face(center=(224.0, 115.0), width=95.0)


def _mapper(finder, **options) -> FaceSwapMapper:
    return FaceSwapMapper(finder, SwapOptions(**options), max_pixels=10**6)


def test_a_pair_of_rows(row, face):
    np.random.seed(0)
    real, fake = _mapper(_Finder(face), size=96)(row)
    assert (real["is_fake"], fake["is_fake"]) == (0, 1)
    assert real["image"].shape == fake["image"].shape == (3, 96, 96)
    assert real["image"].dtype == torch.uint8
    assert not real["soft_mask"].any()
    assert not len(real["instances"])
    assert torch.equal(fake["forgery_mask"], fake["soft_mask"] > 0.5)
    assert len(fake["instances"]) == 1
    assert (real["image_id"], fake["image_id"]) == ("astronaut.png", "astronaut.png#face-swap")


def test_a_photograph_is_read_once(row, face):
    finder = _Finder(face)
    mapper = _mapper(finder)
    mapper(row)
    Path(row["file_name"]).unlink()
    mapper(row)
    assert finder.calls == 1


def test_the_largest_face_is_taken_and_its_landmarks_fit_the_cut(row, face):
    mapper = _mapper(_Finder(synthetic_face(center=(400.0, 400.0), width=30.0), face))
    image, points = mapper.face(row)
    assert max(image.shape[:2]) <= 340
    assert (points.min(0) >= 0).all()
    assert (points.max(0) <= np.array(image.shape[1::-1])).all()


def test_without_a_face_the_image_counts_as_unreadable(row):
    with pytest.raises(ImageReadError, match="no face with 68 landmarks"):
        _mapper(_Finder())(row)


def test_config_keys_are_the_options_with_the_same_defaults(tiny_cfg):
    cfg = tiny_cfg(config="quickstart/mask2former_efficientnet_lite0.yaml")
    assert swap_options(cfg.INPUT.FACE_SWAP) == SwapOptions()
    assert {key.lower() for key in cfg.INPUT.FACE_SWAP} - {"enabled", "autoencoder"} == set(
        SwapOptions.__dataclass_fields__
    )


def test_eigenfaces_are_made_where_they_are_asked_for(tiny_cfg, row, face):
    recipe = {"config": "release/eyes_lite0.yaml"}
    none = ["INPUT.FACE_SWAP.AUTOENCODER_PROB", "0.0", "INPUT.FACE_SWAP.EIGEN_PROB"]
    without = build_face_swap_mapper(tiny_cfg(*none, "0.0", **recipe), _Finder(face), [row])
    assert without.eigenfaces is None
    with_them = build_face_swap_mapper(tiny_cfg(*none, "1.0", **recipe), _Finder(face), [row, {**row, "image_id": "2"}])
    assert with_them.eigenfaces is not None
    assert len(with_them(row)) == 2


def test_whole_images_are_rebuilt_and_forged_everywhere(row, face):
    np.random.seed(0)
    mapper = FaceSwapMapper(
        _Finder(face), SwapOptions(size=96, whole_prob=1.0), autoencoder=FaceAutoencoder(width=8), max_pixels=10**6
    )
    real, fake = mapper(row)
    assert fake["soft_mask"].min() == 1
    assert fake["forgery_mask"].all()
    assert not torch.equal(real["image"], fake["image"])


def test_an_autoencoder_that_is_not_named_is_missed(tiny_cfg):
    cfg = tiny_cfg("INPUT.FACE_SWAP.AUTOENCODER_PROB", "0.5", config="release/eyes_lite0.yaml")
    cfg.defrost()
    cfg.INPUT.FACE_SWAP.AUTOENCODER = ""
    with pytest.raises(ConfigError, match="ddl-d2 train-autoencoder"):
        build_face_swap_mapper(cfg, _Finder(), [])
