import itertools
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from skimage import data as photographs

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions
from ddl_d2.data.build import _real_only
from ddl_d2.data.build_faces import build_face_finder
from ddl_d2.data.loader import TrainLoader
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.data.self_blending_mapper import (
    ReplaceWithSelfBlended,
    SelfBlender,
    SelfBlendingMapper,
    forgery_options,
    post_options,
)
from ddl_d2.errors import ConfigError, ImageReadError
from ddl_d2.faces.face import Face


def _astronauts_face() -> Face:
    """68 points on an ellipse where the face of scikit-image's astronaut is; enough for region masks."""
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([224 + 45 * np.cos(angles), 115 + 60 * np.sin(angles)], axis=1)
    points[0], points[16] = (180, 115), (268, 115)
    return Face((179.0, 55.0, 269.0, 175.0), points, 1.0)


class _OneFace:
    """Always the same face, or none."""

    settings: ClassVar = {"name": "test"}

    def __init__(self, faces: list[Face]) -> None:
        self.faces, self.calls = faces, 0

    def __call__(self, image: np.ndarray) -> list[Face]:
        self.calls += 1
        return self.faces


@pytest.fixture
def astronaut(tmp_path: Path) -> dict:
    path = tmp_path / "astronaut.png"
    cv2.imwrite(str(path), photographs.astronaut()[..., ::-1])
    return {"file_name": str(path), "image_id": "astronaut.png"}


def _mapper(faces: list[Face], *, crop=(0.1, 0.5), post=None, options=None) -> SelfBlendingMapper:
    blender = SelfBlender(_OneFace(faces), options or ForgeryOptions(whole_face_prob=1.0))
    return SelfBlendingMapper(ForgeryDatasetMapper(True, augmentations=[]), blender, crop_margin=crop, post=post)


def test_a_pair_differs_only_where_the_mask_says(astronaut):
    np.random.seed(0)
    real, fake = _mapper([_astronauts_face()], crop=None)(astronaut)
    assert (real["is_fake"], fake["is_fake"]) == (0, 1)
    assert real["image"].shape == fake["image"].shape == (3, 512, 512)
    changed = (real["image"] != fake["image"]).any(dim=0)
    assert changed.any()
    assert not changed[fake["soft_mask"] == 0].any()
    assert torch.equal(fake["forgery_mask"], fake["soft_mask"] > 127.5 / 255)
    assert len(fake["instances"]) == 1
    assert len(real["instances"]) == 0
    assert not real["soft_mask"].any()
    assert fake["image_id"] == "astronaut.png#self-blended"
    assert real["localization_valid"] is fake["localization_valid"] is True


def test_the_crop_shows_the_face_with_its_margin(astronaut):
    face = _astronauts_face()
    wide = face.landmarks[:, 0].max() - face.landmarks[:, 0].min()
    for seed in range(5):
        np.random.seed(seed)
        real, fake = _mapper([face], crop=(0.1, 0.5))(astronaut)
        assert real["image"].shape == fake["image"].shape
        assert 1.2 * wide - 2 <= real["image"].shape[2] <= 2 * wide + 2


def test_post_changes_are_the_same_for_both(astronaut):
    only_shift = PostOptions(rgb_shift_prob=1.0, rgb_shift=(15.0, 20.0), color_prob=0, tone_prob=0, sharpen_prob=0,
                             downscale_prob=0, jpeg_prob=0)  # fmt: skip
    np.random.seed(1)
    real, fake = _mapper([_astronauts_face()], crop=None, post=only_shift)(astronaut)
    outside = fake["soft_mask"] == 0
    assert torch.equal(real["image"][:, outside], fake["image"][:, outside])
    assert real["image"].float().mean() > photographs.astronaut().mean() + 5


def test_the_same_seed_gives_the_same_pair(astronaut):
    pairs = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        pairs.append(_mapper([_astronauts_face()], post=PostOptions())(astronaut)[1]["image"])
    assert torch.equal(pairs[0], pairs[1])
    assert pairs[0].shape != pairs[2].shape or not torch.equal(pairs[0], pairs[2])


@pytest.mark.parametrize(
    ("faces", "why"),
    [
        ([], "no face is found in it"),
        ([Face((0.0, 0.0, 9.0, 9.0), np.full((68, 2), 5.0))], "none of 1 faces is in the"),
    ],
)
@pytest.mark.parametrize("crop", [None, (0.1, 0.5)])
def test_an_image_without_a_face_is_unusable(astronaut, faces, why, crop):
    with pytest.raises(ImageReadError, match=f"cannot be self-blended: {why}") as caught:
        _mapper(faces, crop=crop)(astronaut)
    assert caught.value.path == astronaut["file_name"]


def test_a_pair_is_cut_to_a_face_that_can_be_forged(astronaut):
    tiny = Face((0.0, 0.0, 9.0, 9.0), np.full((68, 2), 5.0))
    for seed in range(5):
        np.random.seed(seed)
        assert _mapper([tiny, _astronauts_face()])(astronaut)[1]["is_fake"] == 1


def _replace(faces, probability, **options):
    blender = SelfBlender(_OneFace(faces), ForgeryOptions(whole_face_prob=1.0, **options))
    return ReplaceWithSelfBlended(blender, probability)


def test_replacing_a_share_of_the_real_images():
    image = photographs.astronaut()
    nothing = np.zeros(image.shape[:2], dtype=bool)
    np.random.seed(0)
    row = {"file_name": "a.png", "is_fake": 0}
    forged, mask, is_fake = _replace([_astronauts_face()], 1.0)(image, nothing, row)
    assert is_fake == 1
    assert mask.any()
    assert (forged != image).any()
    same, _, is_fake = _replace([_astronauts_face()], 0.0)(image, nothing, row)
    assert is_fake == 0
    assert same is image
    assert _replace([], 1.0)(image, nothing, {"file_name": "a.png", "is_fake": 1})[0] is image


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_what_has_no_face_is_not_real_either(probability):
    """Else "no face" would tell real from forged."""
    image = photographs.astronaut()
    with pytest.raises(ImageReadError, match=r"^a\.png: cannot be self-blended: no face is found in it$"):
        _replace([], probability)(image, np.zeros(image.shape[:2], bool), {"file_name": "a.png", "is_fake": 0})


def test_a_loader_of_pairs_counts_and_resumes(astronaut):
    def loader(position=0):
        sampler = TrainingSampler(1, seed=5)
        sampler.position = position
        return TrainLoader(
            [astronaut], mapper=_mapper([_astronauts_face()]), sampler=sampler, total_batch_size=4, num_workers=0
        )

    first = loader()
    batches = list(itertools.islice(first, 2))
    assert [row["is_fake"] for row in batches[0]] == [0, 1, 0, 1]
    assert first.state_dict()["position"] == 2 * 2  # two pairs a batch
    again = next(iter(loader(position=2)))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches[1], again, strict=True))


def test_a_batch_must_hold_whole_pairs(astronaut):
    with pytest.raises(ValueError, match="2 images a sample"):
        TrainLoader([astronaut], mapper=_mapper([]), sampler=TrainingSampler(1, seed=0), total_batch_size=3)


def test_fakes_are_left_out_and_unlabeled_images_are_real():
    rows = [{"image_id": str(i)} for i in range(4)]
    kept, which = _real_only(rows, np.array([0, 1, -1, 1], dtype=np.int8), ["x"])
    assert [row["image_id"] for row in kept] == ["0", "2"]
    assert which.tolist() == [0, 2]
    with pytest.raises(ValueError, match="no real image"):
        _real_only(rows, np.ones(4, dtype=np.int8), ["x"])


def _cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    return cfg


def test_switches_and_errors_of_the_config():
    blend = _cfg().INPUT.SELF_BLEND
    assert forgery_options(blend) == ForgeryOptions()
    assert post_options(blend.POST) == PostOptions()
    blend.MULTI_PART = blend.DISPLACEMENT = False
    options = forgery_options(blend)
    assert options.whole_face_prob == 1.0
    assert options.drag_count == (0, 0)
    blend.PARTS = ["ear"]
    with pytest.raises(ConfigError, match=r"INPUT.SELF_BLEND.*ear"):
        forgery_options(blend)


def test_an_unknown_face_finder_is_named():
    cfg = _cfg()
    cfg.INPUT.FACES.FINDER = "eyes"
    with pytest.raises(ConfigError, match=r"INPUT.FACES.FINDER.*eyes"):
        build_face_finder(cfg)


def test_where_faces_are_remembered(monkeypatch, tmp_path):
    cfg = _cfg()
    monkeypatch.setattr("ddl_d2.faces.finders.make_finder", lambda name, **files: _OneFace([]))
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path))
    assert build_face_finder(cfg).folder == tmp_path / "faces"
    cfg.INPUT.FACES.CACHE = "here"
    assert build_face_finder(cfg).folder == Path("here")
