"""`ddl-d2 make-temporal-forgeries`: the set, its table of leaks, and what is refused."""

from __future__ import annotations

import json

import pytest

from ddl_d2.cli import make_temporal_forgeries
from ddl_d2.forging import forged_clips
from tests.forging.test_forged_clips import face_finder, write_sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(forged_clips, "_finder", lambda name, model: face_finder)
    write_sources(tmp_path / "train", 2)
    write_sources(tmp_path / "valid", 1, first=2)
    return tmp_path


def run(*arguments: object) -> int:
    try:
        return make_temporal_forgeries.main([*map(str, arguments), "--workers", "1", "--size", "64", "--count", "1"])
    except SystemExit as stopped:
        return int(stopped.code)


def test_a_set_and_its_table(folder, capsys):
    out = folder / "set"
    assert run("--train", folder / "train", "--valid", folder / "valid/*.mp4", "--output", out) == 0
    printed = capsys.readouterr().out
    assert "train: 8 clips of 2 sources" in printed
    assert "valid: 4 clips of 1 sources" in printed
    assert "loudness" in printed
    assert {row["name"] for row in json.loads((out / "leaks.json").read_text())} >= {"sharpness", "centroid"}
    files = [entry["file"] for entry in json.loads((out / "metadata.json").read_text())]
    assert sorted(files)[0] == "dev/valid_2_0_audio.mp4"
    assert all((out / file).is_file() for file in files)
    assert json.loads((out / "manifest.json").read_text())["complete"]


def test_words_and_chosen_kinds(folder):
    for number in (0, 1):
        (folder / f"train/{number}.align").write_text("0 15000 sil\n15000 25000 blue\n25000 35000 now\n")
    out = folder / "set"
    chosen = ("--modalities", "audio", "--audio-kinds", "vocoded", "pitch", "--no-leaks")
    assert run("--train", folder / "train", "--align", folder / "train", "--output", out, *chosen) == 0
    entries = json.loads((out / "metadata.json").read_text())
    drawn = [part for entry in entries for part in entry["forgery"].get("audio", [])]
    assert drawn
    assert {part["kind"] for part in drawn} <= {"vocoded", "pitch"}
    assert not (out / "leaks.json").exists()


def test_what_is_refused(folder, capsys, monkeypatch):
    train, out = folder / "train", folder / "set"
    cases = {
        "is in --train and in --valid": ("--train", train, "--valid", train / "0.mp4", "--output", out),
        "no such file": ("--train", folder / "none", "--output", out),
        "not empty": ("--train", train, "--output", train),
        "must be even": ("--train", train, "--output", out, "--size", "33"),
    }
    for said, arguments in cases.items():
        if said == "must be even":
            with pytest.raises(SystemExit):
                make_temporal_forgeries.main([*map(str, arguments)])
        else:
            assert run(*arguments) == 2
        assert said in capsys.readouterr().err
    (train / "0.align").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert run("--train", train, "--align", train, "--output", out) == 2
    assert "start end word" in capsys.readouterr().err
