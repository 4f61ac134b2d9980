import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddl_d2.cli import check_dataset
from ddl_d2.data.datasets import load_dataset
from ddl_d2.io.image import write_png

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """A clean train split (two real, two fake) and a clean valid split (one real)."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for name in ("train/real/a", "train/real/b", "train/fake/c", "train/fake/d", "valid/real/e"):
        write_png(root / f"{name}.png", rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    for name in "cd":
        write_png(root / "train" / "masks" / f"{name}.png", np.arange(9)[:, None] > np.full((1, 13), 4))
    return root


def spoil(root):
    train = root / "train"
    data = (train / "real" / "a.png").read_bytes()
    (train / "real" / "a.png").write_bytes(data[: len(data) // 2])
    write_png(train / "masks" / "c.png", np.ones((9, 12), bool))
    write_png(train / "masks" / "d.png", np.zeros((9, 13), bool))
    write_png(train / "masks" / "lost.png", np.ones((9, 13), bool))
    write_png(train / "fake" / "bare.png", np.zeros((9, 13, 3), np.uint8))
    write_png(train / "fake" / "one.png", np.zeros((9, 13, 3), np.uint8))
    write_png(train / "masks" / "one.png", np.eye(9, 13, dtype=np.uint8))
    write_png(train / "fake" / "zero.png", np.zeros((9, 13, 3), np.uint8))
    (train / "masks" / "zero.png").touch()


def test_a_clean_set(root, capsys):
    assert check_dataset.main([str(root), "--deep", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "4 images, 2 real, 2 fake (2 with a mask)" in out
    assert "1 images, 1 real, 0 fake" in out
    assert out.endswith("clean\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_problem_at_once(root, capsys, tmp_path, workers):
    spoil(root)
    report = tmp_path / "report.json"
    assert check_dataset.main([str(root), "--deep", "--workers", workers, "--json", str(report)]) == 1
    train, valid = json.loads(report.read_text())
    assert train["problems"] == {
        "empty_mask": 1,
        "fake_without_mask": 1,
        "mask_size": 1,
        "mask_without_fake": 1,
        "unreadable_mask": 1,
        "unreadable_image": 1,
    }
    assert train["counts"] == {**train["problems"], "mask_full": 1, "mask_coded_01": 1}
    assert train["examples"]["mask_size"] == ["fake/c.png: 13 x 9, mask 12 x 9"]
    assert valid["problems"] == {}
    out = capsys.readouterr().out
    assert out.count("To do:") == 8
    assert out.endswith("6 problems\n")


def test_masks_that_are_coded_otherwise_are_named(root, capsys):
    """A mask of 0 and 2 shows nothing forged, one in the alpha channel of a white image everything."""
    forged = np.eye(9, 13, dtype=np.uint8)
    write_png(root / "train/masks/c.png", 2 * forged)
    in_alpha = np.dstack([np.full((9, 13, 3), 255, np.uint8), 255 * forged])
    Image.fromarray(in_alpha).save(root / "train/masks/d.png")
    assert check_dataset.main([str(root), "--deep", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "fake/c.png: gray values are 0, 2, and forged is 128 or more" in out
    assert "1 masks of one gray value everywhere" in out
    assert out.endswith("2 problems\n")


@pytest.mark.parametrize(("old", "new"), [("real", "Real"), ("fake", "FAKE"), ("masks", "Masks")])
def test_folders_in_capitals_are_not_passed_over(root, capsys, old, new):
    (root / "train" / old).rename(root / "train" / new)
    with pytest.raises(SystemExit) as stopped:
        check_dataset.main([str(root)])
    assert stopped.value.code == 2
    assert f"must be in small letters; rename {new}/ to {old}/" in capsys.readouterr().err


def test_without_deep_only_names_count(root, capsys):
    spoil(root)
    assert check_dataset.main([str(root), "--split", "train"]) == 1
    assert capsys.readouterr().out.endswith("2 problems\n")
    assert check_dataset.main([str(root), "--split", "valid"]) == 0


def test_files_that_are_not_used_are_counted_and_named(root, capsys):
    """Of seven files three cannot be used: not clean."""
    train = root / "train"
    (train / "real" / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (train / "real" / "photo").write_bytes((train / "real" / "a.png").read_bytes())
    (train / "real" / "notes.txt").touch()
    assert check_dataset.main([str(train), "--deep", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "6 images, 4 real" in out
    assert "1 images of formats that are not read; kept, and fail when they are read (e.g. photo.HEIC: HEIC)" in out
    assert "real/photo.HEIC: is a HEIC image, which is not read" in out
    assert "1 files of other kinds; not used (e.g. notes.txt)" in out


def test_a_json_list(root, capsys):
    (root / "list.json").write_text(json.dumps([["train/real/a.png", "Negative"], ["../x.png", "Negative"], [1]]))
    assert check_dataset.main([str(root / "list.json")]) == 1
    out = capsys.readouterr().out
    assert "lead out of its root" in out
    assert out.endswith("2 problems\n")


def killer(row, victim):
    if row["image_id"].endswith(victim):
        os._exit(3)
    return [("empty_mask", row["image_id"])]


def test_a_file_that_kills_its_reader_is_found(root, monkeypatch):
    monkeypatch.setattr(check_dataset, "CHUNK", 1)
    rows, _ = load_dataset(root / "train")
    findings = list(check_dataset.deep(rows, functools.partial(killer, victim="b.png"), 2))
    assert [kind for kind, _ in findings].count("reader_died") == 1
    (where,) = [text for kind, text in findings if kind == "reader_died"]
    assert where.startswith("between real/")
    assert len(findings) >= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "no such file or folder"),
        (["set", "--split", "test"], "no test split"),
        (["set/train/real/a.png"], "not a .json list"),
        (["set", "--workers", "0"], "--workers"),
        ([], "ROOT"),
        (["set", "--depe"], "--depe"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(root, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        check_dataset.main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_as_a_command(root):
    command = [sys.executable, str(ROOT / "tools" / "check_dataset.py"), str(root / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_real_sets(shared, capsys):
    assert check_dataset.main([str(shared / "data" / "casia_faces"), "--deep", "--workers", "1"]) == 0
    assert check_dataset.main([str(shared / "data" / "stylegan2_vs_ffhq")]) == 1
    assert "40 fake images without a mask file" in capsys.readouterr().out
