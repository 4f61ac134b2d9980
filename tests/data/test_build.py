import random
from itertools import islice
from typing import ClassVar

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data import build_faces
from ddl_d2.data.build import build_test_loader, build_train_loader
from ddl_d2.data.build_faces import build_face_crop, build_face_finder
from ddl_d2.data.datasets import register_datasets
from ddl_d2.data.loader import BatchesOfOneSize, TrainLoader, seeded
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.errors import ConfigError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.io.image import write_png


@pytest.fixture
def root(tmp_path, monkeypatch):
    """train: 9 fakes, 4 reals; valid: 3 of each."""
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, fakes, reals in (("train", 9, 4), ("valid", 3, 3)):
        for index in range(fakes + reals):
            image = rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
            kind = "fake" if index < fakes else "real"
            write_png(tmp_path / "set" / split / kind / f"{index}.png", image)
            if kind == "fake":
                write_png(tmp_path / "set" / split / "masks" / f"{index}.png", rng.random(image.shape[:2]) < 0.3)
    return tmp_path / "set"


@pytest.fixture
def cfg(root):
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.DATASETS.DDL_ROOT = str(root)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("ddl_i_train",), ("ddl_i_valid",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32,), 128
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 32, 128
    cfg.INPUT.CROP.SIZE = [24, 24]
    cfg.SOLVER.IMS_PER_BATCH = 3
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 5
    register_datasets(cfg)
    return cfg


def fingerprint(batches):
    return [[(row["image_id"], row["image"].numpy().tobytes()) for row in batch] for batch in batches]


def test_real_images_survive(cfg):
    seen = {row["image_id"]: row["is_fake"] for batch in islice(build_train_loader(cfg), 13) for row in batch}
    assert len(seen) == 13
    assert sum(label == 0 for label in seen.values()) == 4


def test_balanced_sampler(cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "ClassBalancedSampler"
    cfg.SOLVER.IMS_PER_BATCH = 4
    for batch in islice(build_train_loader(cfg), 10):
        assert sum(row["is_fake"] for row in batch) == 2


def test_workers_and_interruptions_change_nothing(cfg):
    whole = fingerprint(islice(build_train_loader(cfg), 8))
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        loader = build_train_loader(cfg)
        first = fingerprint(islice(loader, 3))
        state = loader.state_dict()
        assert state["position"] == 9
        again = build_train_loader(cfg)
        again.load_state_dict(state)
        assert first + fingerprint(islice(again, 5)) == whole
        # A second iteration of the same loader goes on, too.
        assert fingerprint(islice(loader, 2)) == whole[3:5]


def test_ranks_see_different_images_of_one_stream(cfg, monkeypatch):
    whole = [row["image_id"] for batch in islice(build_train_loader(cfg), 4) for row in batch]
    cfg.SOLVER.IMS_PER_BATCH = 6
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        loader = build_train_loader(cfg)
        parts.append([row["image_id"] for batch in islice(loader, 2) for row in batch])
        assert loader.state_dict()["position"] == 12
    assert [image_id for pair in zip(*parts, strict=True) for image_id in pair] == whole


def test_a_batch_that_ranks_cannot_share(cfg, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="not a positive multiple of 2"):
        build_train_loader(cfg)


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_gives_everything_once_in_order(cfg, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.TEST.BATCH_SIZE = 4
    batches = list(build_test_loader(cfg, "ddl_i_valid"))
    assert [len(batch) for batch in batches] == [4, 2]
    ids = [row["image_id"] for batch in batches for row in batch]
    assert ids == [row["image_id"] for row in DatasetCatalog.get("ddl_i_valid")]


def test_several_training_sets(cfg):
    cfg.DATASETS.TRAIN = ("ddl_i_train", "ddl_i_valid")
    cfg.DATALOADER.SAMPLER_TRAIN = "ClassBalancedSampler"
    loader = build_train_loader(cfg)
    assert loader.sampler.size == 19
    assert [len(members) for members in loader.sampler.members] == [7, 12]


def test_unlabeled_images_cannot_train(cfg, root):
    cfg.DATASETS.FOLDER_ROOT = str(root / "valid" / "fake")
    register_datasets(cfg)
    cfg.DATASETS.TRAIN = ("folder",)
    with pytest.raises(ValueError, match="folder: 3 of 3 images have no real/fake label"):
        build_train_loader(cfg)


def test_unknown_sampler(cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    with pytest.raises(ValueError, match="RepeatFactorTrainingSampler"):
        build_train_loader(cfg)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(cfg, root, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    broken = root / "train" / "real" / "10.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"real/10\.png"):
        list(islice(build_train_loader(cfg), 5))


def test_plain_lists_and_mappers_work():
    loader = TrainLoader(
        [{"number": n} for n in range(4)],
        mapper=lambda row: {**row, "draw": np.random.randint(10**6), "other": random.random()},
        sampler=TrainingSampler(4, seed=1),
        total_batch_size=2,
    )
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    rows = [row for batch in islice(loader, 50) for row in batch]
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert len({row["draw"] for row in rows}) > 95
    assert len({row["other"] for row in rows}) == 100


def test_seeded_is_a_function_of_both_numbers():
    def draw(seed, position):
        with seeded(seed, position):
            return np.random.randint(2**31), random.random()

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(1, 2), draw(2, 1), draw(1, 3), draw(0, 0)}) == 4


def test_one_thread_in_each_worker(cfg):
    import cv2

    cfg.DATALOADER.NUM_WORKERS = 1
    # A used thread pool in the parent must not hang the child.
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((1000, 1000, 3), np.uint8), (0, 0), 4)

    def mapper(row):
        cv2.GaussianBlur(np.zeros((1000, 1000, 3), np.uint8), (0, 0), 4)
        return {"threads": (cv2.getNumThreads(), torch.get_num_threads())}

    batch = next(iter(build_train_loader(cfg, mapper=mapper)))
    assert batch[0]["threads"] == (1, 1)


def test_a_real_set(cfg, shared):
    cfg.DATASETS.DDL_ROOT = str(shared / "data" / "dfdc_pairs")
    register_datasets(cfg)
    rows = [row for batch in islice(build_train_loader(cfg), 8) for row in batch]
    assert {row["is_fake"] for row in rows} == {0, 1}
    assert any(row["forgery_mask"].any() for row in rows if row["is_fake"])
    assert build_test_loader(cfg, "ddl_i_valid").num_rows == 604


class _Faces:
    """Two faces in every image; counts how often it looks."""

    settings: ClassVar = {"name": "two faces"}

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return [Face((1, 2, 9, 12), np.full((5, 2), 5.0)), Face((10, 2, 22, 14), np.full((5, 2), 12.0))]


@pytest.fixture
def faces(cfg, tmp_path, monkeypatch):
    """What looks for faces behind INPUT.FACE_CROP, which is on."""
    faces = _Faces()
    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: CachedFaceFinder(faces, tmp_path / "faces"))
    cfg.INPUT.FACE_CROP.ENABLED, cfg.INPUT.FACE_CROP.MARGIN = True, 0.0
    return faces


def test_each_image_is_searched_for_faces_once(cfg, faces):
    for _ in range(2):
        rows = [row for batch in build_test_loader(cfg, "ddl_i_valid") for row in batch]
        assert len(rows) == 6
    assert faces.calls == 6
    for _ in range(2):  # 13 images a pass, two passes
        list(islice(build_train_loader(cfg), 9))
    assert faces.calls == 6 + 13


@pytest.mark.parametrize("workers", [0, 2])
def test_testing_shows_every_face(cfg, faces, tmp_path, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    rows = [row for batch in build_test_loader(cfg, "ddl_i_valid") for row in batch]
    for row in rows:
        assert "image" not in row
        assert [crop["window"] for crop in row["crops"]] == [(1, 2, 9, 12), (10, 2, 22, 14)]
        assert [tuple(crop["image"].shape) for crop in row["crops"]] == [(3, 40, 32), (3, 32, 32)]
    assert len(list((tmp_path / "faces").rglob("*.json"))) == 6


def test_training_shows_one_face(cfg, faces):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.SCALE_RANGE = False, [1.0, 1.0]
    sizes = {tuple(row["image"].shape[1:]) for batch in islice(build_train_loader(cfg), 8) for row in batch}
    assert sizes == {(32, 32)}  # the right one has 144 pixels, the left one 80
    cfg.INPUT.FACE_CROP.TRAIN_FACE, cfg.INPUT.FACE_CROP.NOSE_BOX = "random", True
    first, second = (fingerprint(islice(build_train_loader(cfg), 8)) for _ in range(2))
    assert first == second
    rows = [row for batch in islice(build_train_loader(cfg), 8) for row in batch]
    assert {tuple(row["image"].shape[1:]) for row in rows} == {(32, 32), (40, 32)}
    assert all(row["nose_box"].shape == (4,) for row in rows)


def test_pairs_have_a_crop_of_their_own_in_training_only(cfg, faces):
    cfg.INPUT.SELF_BLEND.ENABLED = True
    assert build_face_crop(cfg, True) is None
    assert build_face_crop(cfg, False).choice == "all"
    cfg.INPUT.SELF_BLEND.PAIRS = False
    assert build_face_crop(cfg, True).choice == "largest"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("TRAIN_FACE", "all", "TRAIN_FACE 'all' is none of"),
        ("RULE", "ellipse", "INPUT.FACE_CROP: the rule of face crops 'ellipse'"),
        ("WHOLE_ABOVE", 0.0, "INPUT.FACE_CROP: .* share 0"),
        ("ENABLED", False, "NOSE_BOX needs INPUT.FACE_CROP.ENABLED"),
    ],
)
def test_wrong_keys_of_face_crops(cfg, faces, key, value, words):
    cfg.INPUT.FACE_CROP.NOSE_BOX = True
    cfg.INPUT.FACE_CROP[key] = value
    with pytest.raises(ConfigError, match=words):
        build_face_crop(cfg, True)


def test_batches_of_one_size():
    sizes = [(64, 64), (64, 96), (64, 64), (60, 90), (64, 64), (64, 96), (300, 40)]
    rows = [{"image": torch.zeros(3, *size), "n": n} for n, size in enumerate(sizes)]
    rows.insert(2, {"n": 7, "unreadable": "why"})
    loader = torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=list)
    batches = BatchesOfOneSize(loader, 2)
    found = [[row["n"] for row in batch] for batch in batches]
    # As soon as two of a size are there; the rest, as they were begun, at the end. 60 x 90 pads as 64 x 96 does.
    assert found == [[0, 2], [1, 3], [7], [4], [5], [6]]
    assert batches.num_rows == 8
    assert len(batches) == 4


def test_rows_of_many_sizes_do_not_pile_up():
    rows = [{"image": torch.zeros(1, 32 * (n + 1), 32), "n": n} for n in range(40)]
    batches = BatchesOfOneSize(torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=list), 2)
    seen = []
    for batch in batches:
        seen += [row["n"] for row in batch]
    assert sorted(seen) == list(range(40))
    assert seen[0] == 0  # handed out once more than 16 rows are held


@pytest.mark.parametrize(
    ("finder", "expected"),
    [
        ("dlib", {"max_side": 800, "min_score": -0.1, "upsample": 2, "landmarks": False}),
        ("yunet", {"max_side": 800, "min_score": 0.7, "nms": 0.4, "landmarks": False}),
    ],
)
def test_the_settings_of_a_finder_are_keys(cfg, tmp_path, monkeypatch, finder, expected):
    made = []
    monkeypatch.setattr(
        "ddl_d2.faces.finders.make_finder", lambda name, **options: made.append((name, options)) or _Faces()
    )
    faces = cfg.INPUT.FACES
    faces.FINDER, faces.CACHE, faces.MAX_SIDE, faces.LANDMARKS = finder, str(tmp_path), 800, False
    faces.DLIB_MIN_SCORE, faces.DLIB_UPSAMPLE, faces.YUNET_MIN_SCORE, faces.YUNET_NMS = -0.1, 2, 0.7, 0.4
    build_face_finder(cfg)
    ((name, options),) = made
    assert name == finder
    assert {key: value for key, value in options.items() if not key.endswith("_model")} == expected
