"""`ddl-d2 index-faces`: one index a dataset, which LFDL's recipe trains and is tested on."""

from __future__ import annotations

import itertools
import json

import pytest

from ddl_d2.cli import index_faces
from ddl_d2.data.build import build_test_loader, build_train_loader
from ddl_d2.data.datasets import load_config
from ddl_d2.io.image import write_png
from tests.conftest import TINY, make_tiny_set

RECIPE = "ddl_i/lfdl_xception"
# Left and right third of each image of 64 x 80; what is forged lies between x = 20 and 50, in the left one.
LEFT, RIGHT = [0, 64, 0, 27], [0, 64, 53, 80]
BOXES = ["INPUT.FACE_CROP.RULE", "box", "INPUT.FACE_CROP.MARGIN", "0.0"]


@pytest.fixture
def data(tmp_path):
    """The tiny set, and a list of two crops of each of its images."""
    root = make_tiny_set(tmp_path / "data")
    names = [path.relative_to(root) for kind in ("real", "fake") for path in sorted(root.glob(f"*/{kind}/*.png"))]
    crops = {f"crops/{n.with_suffix('')}_{i:03d}.png": box for n in names for i, box in enumerate((LEFT, RIGHT))}
    (tmp_path / "face_locations.json").write_text(json.dumps(crops))
    return ["DATASETS.DDL_ROOT", str(root), "INPUT.FACES.LIST", str(tmp_path / "face_locations.json")]


def index(tmp_path, *options):
    index_faces._look = None
    return index_faces.main(["--config-file", RECIPE, "--output", str(tmp_path / "faces"), *options])


def test_a_recipe_trains_and_is_tested_on_its_faces(data, tmp_path, capsys):
    assert index(tmp_path, "--workers", "2", *data, *BOXES) == 0
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == ["ddl_i_train.csv", "ddl_i_valid.csv"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "ddl_i_train: 8 images, 0 without a face, 0 unreadable; 16 crops: 12 real, 4 fake "
        "(an epoch with as many of each: 24)"
    )
    cfg = load_config(
        RECIPE, [*TINY, *data, *BOXES, "INPUT.FACE_CROP.INDEX", str(tmp_path / "faces"), "SOLVER.IMS_PER_BATCH", "8"]
    )
    rows = [row for batch in itertools.islice(build_train_loader(cfg), 6) for row in batch]
    assert sum(row["is_fake"] for row in rows) == 24
    assert {row["image_id"][-2:] for row in rows if row["is_fake"]} == {"#0"}
    for (row,) in build_test_loader(cfg, "ddl_i_valid"):
        assert [crop["window"] for crop in row["crops"]] == [(0, 0, 27, 64), (53, 0, 80, 64)]


def test_images_that_cannot_be_read_are_counted(data, tmp_path, capsys):
    (tmp_path / "data" / "train" / "real" / "0.png").write_bytes(b"no image")
    (tmp_path / "face_locations.json").write_text("{}")
    assert index(tmp_path, "--workers", "1", *data, *BOXES) == 1
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("ddl_i_train: 8 images, 7 without a face, 1 unreadable; 8 crops: 4 real, 4 fake")


@pytest.mark.usefixtures("needs_dlib")
def test_faces_are_found(astronaut, tmp_path, capsys):
    for split in ("train", "valid"):
        write_png(tmp_path / "data" / split / "real" / "face.png", astronaut[:300, 80:380])
        write_png(tmp_path / "data" / split / "real" / "none.png", astronaut[:60, :60] * 0)
    assert index(tmp_path, "--workers", "2", "DATASETS.DDL_ROOT", str(tmp_path / "data")) == 0
    said = capsys.readouterr().out
    assert "ddl_i_train: 2 images, 1 without a face, 0 unreadable; 2 crops: 2 real, 0 fake" in said
    lines = (tmp_path / "faces" / "ddl_i_valid.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[2:]] == ["real/face.png", "real/none.png"]
    assert lines[3] == "real/none.png,0,0,60,60,0,0"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"], "nothing to index"),
        (["INPUT.FACE_CROP.RULE", "landmarks"], "RULE box; where they are crops already, with MARGIN 0.0"),
        (["INPUT.FACES.LIST", "none.json"], "none.json: cannot be read as JSON"),
        (["DATASETS.TRAIN", "('nothing',)"], "'nothing'"),
    ],
)
def test_what_cannot_be_indexed(data, tmp_path, capsys, options, says):
    with pytest.raises(SystemExit) as stopped:
        index(tmp_path, "--workers", "1", *data, *options)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "faces").exists()
