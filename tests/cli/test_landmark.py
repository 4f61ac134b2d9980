"""tools/landmark.py: every image once, failures at the end, resumable."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage

from ddl_d2.cli import landmark
from ddl_d2.io.image import read_image, write_png


@pytest.fixture(scope="module")
def tool(needs_dlib):
    return landmark


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path / "shared"))
    root = tmp_path / "set"
    astronaut = read_image(Path(skimage.__file__).parent / "data/astronaut.png")
    write_png(root / "real" / "face.png", astronaut[:300, 80:380])
    write_png(root / "fake" / "other.png", astronaut[:280, 90:370])
    write_png(root / "fake" / "empty.png", np.zeros((60, 80, 3), np.uint8))
    write_png(root / "masks" / "other.png", np.zeros((280, 280), bool))
    return root


def test_all_images_then_none(tool, images, tmp_path, capsys):
    cache = tmp_path / "cache"
    arguments = [str(images), "--workers", "1", "--cache", str(cache)]
    assert tool.main(arguments) == 0
    summary = "3 images, 2 faces, 1 without a face, 0 failed"
    assert capsys.readouterr().out == f"{summary}; 0 were in the cache already\n"
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.json")}
    assert len(kept) == 3
    assert tool.main(arguments) == 0
    assert capsys.readouterr().out == f"{summary}; 3 were in the cache already\n"
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.json")} == kept


def test_an_interrupted_run_goes_on(tool, images, tmp_path, capsys):
    arguments = [str(images), "--cache", str(tmp_path / "cache")]
    assert tool.main([*arguments, "--workers", "1"]) == 0
    next((tmp_path / "cache").rglob("*.json")).unlink()
    capsys.readouterr()
    assert tool.main([*arguments, "--workers", "2"]) == 0
    assert "2 were in the cache already" in capsys.readouterr().out


def test_failures_are_listed_and_the_rest_is_done(tool, images, capsys):
    (images / "real" / "broken.jpg").write_bytes(b"no image")
    assert tool.main([str(images), "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 images, 2 faces, 1 without a face, 1 failed")
    assert len(lines) == 2
    assert lines[1].startswith("failed real/broken.jpg: ")
    assert len(list((images.parent / "shared" / "faces").rglob("*.json"))) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none"], "none is not a folder"),
        (["set", "--finder", "yunet"], "needs the path of a YuNet model"),
        (["set", "--finder", "yunet", "--yunet-model", "none.onnx"], "none.onnx does not exist"),
        (["set", "--landmark-model", "none.dat"], "none.dat does not exist"),
        (["set", "--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_what_cannot_be_used_at_all(tool, images, arguments, says, capsys, monkeypatch):
    monkeypatch.chdir(images.parent)
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (images.parent / "shared").exists()


def test_a_folder_without_images(tool, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(tmp_path / "empty")])
    assert stopped.value.code == 2
    assert "no image" in capsys.readouterr().err


def test_a_copy_elsewhere_is_the_same_image(tool, images, tmp_path, capsys):
    assert tool.main([str(images), "--workers", "1", "--cache", str(tmp_path / "cache")]) == 0
    shutil.copytree(images, tmp_path / "moved")
    capsys.readouterr()
    assert tool.main([str(tmp_path / "moved"), "--workers", "1", "--cache", str(tmp_path / "cache")]) == 0
    assert "3 were in the cache already" in capsys.readouterr().out
