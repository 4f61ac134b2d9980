"""Face crops as rows: found, labeled by their own pixels, balanced, shown in training and in testing."""

from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from ddl_d2.data import build_faces
from ddl_d2.data.build import build_test_loader, build_train_loader
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.face_index import FaceRows, IndexedFace, RowsWithWindows, faces_of_row, read_index, write_index
from ddl_d2.errors import ConfigError, DatasetError
from ddl_d2.faces.crop import FaceCropper
from ddl_d2.faces.face import Face
from ddl_d2.faces.listed import FaceList
from ddl_d2.io.image import write_png

SIDE = 32
MADE_BY = {"rule": "box", "whole_above": 0.9, "smallest": 0.0, "margin": 0.0}


class Finder:
    """Faces stand side by side, SIDE pixels apart; the first pixel says how many there are."""

    settings: ClassVar = {"name": "test"}

    def __call__(self, image):
        boxes = [(SIDE * i + 4.0, 4.0, SIDE * i + 28.0, 28.0) for i in range(int(image[0, 0, 0]))]
        return [Face(box, np.zeros((5, 2))) for box in boxes]


def cropper():
    return FaceCropper(Finder(), margin=0.0, whole_above=0.9)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> DatasetColumns:
    """120 images of 2 to 5 faces, five of six fake; of a fake's faces one at least is forged, as many as is drawn."""
    root, rng = tmp_path_factory.mktemp("crowd"), np.random.default_rng(0)
    names, labels, masks = [], [], []
    for number in range(120):
        faces = int(rng.integers(2, 6))
        image = np.zeros((SIDE, SIDE * faces, 3), np.uint8)
        image[0, 0] = faces
        names.append(f"{number}.png")
        labels.append(int(number % 6 > 0))
        masks.append(f"masks/{number}.png" if labels[-1] else "")
        write_png(root / names[-1], image)
        if labels[-1]:
            mask = np.zeros(image.shape[:2], np.uint8)
            for i in rng.choice(faces, size=rng.integers(1, faces + 1), replace=False):
                mask[6:26, SIDE * i + 6 : SIDE * i + 26] = 255
            write_png(root / masks[-1], mask)
    return DatasetColumns.from_lists(str(root), names, labels, masks)


@pytest.fixture
def cfg(crowd, tiny_cfg, tmp_path, monkeypatch):
    """A config of face crops over the crowd, and its index."""
    for name in ("crowd_train", "crowd_test"):
        DatasetCatalog.register(name, lambda: crowd)
        found = ((row["image_id"], faces_of_row(row, cropper(), max_pixels=10**6)) for row in crowd)
        write_index(tmp_path / "faces" / f"{name}.csv", MADE_BY, found)
    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: Finder())
    yield tiny_cfg(
        "DATASETS.TRAIN", "('crowd_train',)", "DATASETS.TEST", "('crowd_test',)", "SEED", "0",
        "INPUT.FACE_CROP.ENABLED", "True", "INPUT.FACE_CROP.MARGIN", "0.0", "INPUT.FACE_CROP.WHOLE_ABOVE", "0.9",
        "INPUT.FACE_CROP.TRAIN_FACE", "each", "INPUT.FACE_CROP.INDEX", str(tmp_path / "faces"),
        "INPUT.MIN_SIZE_TRAIN", "(24,)", "INPUT.MIN_SIZE_TEST", "24", "INPUT.SCALE_RANGE", "[1.0, 1.0]",
        "INPUT.CROP.ENABLED", "False", "INPUT.COLOR_AUG_SSD", "False", "SOLVER.IMS_PER_BATCH", "20",
        "DATALOADER.SAMPLER_TRAIN", "ClassBalancedSampler",
    )  # fmt: skip
    DatasetCatalog.remove("crowd_train")
    DatasetCatalog.remove("crowd_test")


def shown(cfg, batches: int = 40) -> list[dict]:
    return [row for batch in itertools.islice(build_train_loader(cfg), batches) for row in batch]


def test_half_of_the_crops_are_fake_on_images_of_several_faces(cfg):
    """To be balanced is to be half and half: 400 of 800. Balanced over images, only the crops of fakes that show a
    forged face would be fake."""
    rows = shown(cfg)
    assert sum(row["is_fake"] for row in rows) == len(rows) / 2 == 400
    assert all(bool(row["forgery_mask"].any()) == bool(row["is_fake"]) for row in rows)
    assert {tuple(row["image"].shape[1:]) for row in rows} == {(24, 24)}
    cfg.INPUT.FACE_CROP.TRAIN_FACE = "random"
    assert np.mean([row["is_fake"] for row in shown(cfg)]) < 0.4


def test_every_face_is_shown(cfg, crowd):
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    loader = build_train_loader(cfg)
    faces = loader.sampler.size
    ids = {row["image_id"] for row in shown(cfg, batches=-(-faces // 20))}
    assert len(ids) == faces > 2 * len(crowd)


def test_testing_shows_the_windows_of_the_index(cfg, crowd):
    for batch, row in zip(build_test_loader(cfg, "crowd_test"), crowd, strict=True):
        (given,) = batch
        assert given["image_id"] == row["image_id"]
        faces = given["width"] // SIDE
        assert [crop["window"] for crop in given["crops"]] == [
            (SIDE * i + 4, 4, SIDE * i + 28, 28) for i in range(faces)
        ]
        assert given["has_face"] is True


def test_the_faces_of_a_row(tmp_path):
    write_png(tmp_path / "a.png", np.full((SIDE, 2 * SIDE, 3), 2, np.uint8))
    mask = np.zeros((SIDE, 2 * SIDE), np.uint8)
    mask[10:12, 40:44] = 255  # in the second face
    write_png(tmp_path / "mask.png", mask)
    row = {"file_name": str(tmp_path / "a.png"), "image_id": "a.png", "is_fake": 1}
    first, second = (4, 4, 28, 28), (36, 4, 60, 28)

    def faces(**changes):
        return faces_of_row(row | changes, cropper(), max_pixels=10**6)

    masked = {"mask_file_name": str(tmp_path / "mask.png")}
    assert faces(**masked) == [IndexedFace(first, True, 0), IndexedFace(second, True, 1)]
    assert faces(is_fake=0, **masked) == [IndexedFace(first, True, 0), IndexedFace(second, True, 0)]
    assert [face.label for face in faces()] == [1, 1]  # which face is forged is not known
    write_png(tmp_path / "mask.png", np.zeros_like(mask))
    assert faces(**masked) == [IndexedFace((0, 0, 0, 0), False, 1)]  # no real image: refused when it is drawn
    assert faces(file_name="none.png") == [IndexedFace((0, 0, 0, 0), False, 1)]
    write_png(tmp_path / "a.png", np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    assert faces(is_fake=0) == [IndexedFace((0, 0, 64, 32), False, 0)]


@pytest.fixture
def rows(tmp_path):
    return DatasetColumns.from_lists(str(tmp_path), ["a, b.png", "c.png", "d.png"], [1, -1, 0], ["m.png", "", ""])


FACES = {
    "a, b.png": [IndexedFace((0, 0, 5, 5), True, 0), IndexedFace((5, 0, 9, 9), True, 1)],
    "c.png": [IndexedFace((0, 0, 9, 9), False, -1)],
    "d.png": [IndexedFace((0, 0, 0, 0), False, 0)],
}


def test_an_index_is_read_as_it_was_written(rows, tmp_path):
    write_index(tmp_path / "x.csv", MADE_BY, iter(FACES.items()))
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[1:4] == ["image_id,x0,y0,x1,y1,has_face,is_fake", '"a, b.png",0,0,5,5,1,0', '"a, b.png",5,0,9,9,1,1']
    index = read_index(tmp_path / "x.csv", MADE_BY, rows)
    faces = FaceRows(rows, index)
    assert faces.labels.tolist() == [0, 1, -1, 0]
    expected = [("a, b.png#0", (0, 0, 5, 5), 0), ("a, b.png#1", (5, 0, 9, 9), 1), ("c.png#0", (0, 0, 9, 9), None)]
    assert [(row["image_id"], row["window"], row.get("is_fake")) for row in (faces[0], faces[1], faces[2])] == expected
    assert "window" not in faces[3]  # unreadable
    assert faces[1]["mask_file_name"].endswith("m.png")
    tested = RowsWithWindows(rows, index)
    assert (tested[0]["windows"], tested[0]["has_face"]) == ([(0, 0, 5, 5), (5, 0, 9, 9)], True)
    assert tested[1]["has_face"] is False
    assert tested[0]["is_fake"] == 1  # an image's label is its own
    assert "windows" not in tested[2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("c.png", "e.png"), "e.png is not image 2 of the dataset"),
        (lambda text: text.replace("d.png,0,0,0,0,0,0\n", ""), "has 2 images, the dataset 3"),
        (lambda text: text.replace('"rule": "box"', '"rule": "landmarks"'), "were made by .*landmarks"),
        (lambda text: text.replace("0,0,9,9", "0,0,9"), "no index of this dataset's faces"),
        (lambda text: "image_id\n", "no index of this dataset's faces"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(rows, tmp_path, change, says):
    write_index(tmp_path / "x.csv", MADE_BY, iter(FACES.items()))
    (tmp_path / "x.csv").write_text(change((tmp_path / "x.csv").read_text()))
    with pytest.raises(DatasetError, match=rf"x.csv: .*{says}.*ddl-d2 index-faces"):
        read_index(tmp_path / "x.csv", MADE_BY, rows)


def test_each_face_needs_an_index_of_the_configs_windows(cfg, tmp_path):
    cfg.INPUT.FACE_CROP.MARGIN = 0.5
    with pytest.raises(DatasetError, match="this config says"):
        build_train_loader(cfg)
    cfg.INPUT.FACE_CROP.INDEX = str(tmp_path)
    with pytest.raises(DatasetError, match="there is no such index"):
        build_train_loader(cfg)
    cfg.INPUT.FACE_CROP.INDEX = ""
    with pytest.raises(ConfigError, match="ddl-d2 index-faces"):
        build_train_loader(cfg)


def test_faces_of_a_list_are_not_looked_for(rows, tmp_path):
    write_png(tmp_path / "c.png", np.zeros((100, 100, 3), np.uint8))
    (tmp_path / "faces.json").write_text('{"c.png": [{"box": [10, 20, 30, 60]}]}')
    listed = FaceList(tmp_path / "faces.json")

    def unused(image):
        raise AssertionError("it was looked for")

    crop = FaceCropper(unused, margin=0.1)
    (face,) = faces_of_row(rows[1], crop, listed=listed, max_pixels=10**6)
    assert face == IndexedFace((8, 16, 32, 64), True, -1)  # 2 and 4 pixels more on each side
