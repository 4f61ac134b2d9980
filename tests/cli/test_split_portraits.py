import csv
from pathlib import Path

import pytest

from ddl_d2.cli.split_portraits import main, persons


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    folder = tmp_path / "portraits"
    folder.mkdir()
    for i in range(60):
        for kind in ("house", "senate"):
            (folder / f"{kind}_person-{i}.jpg").write_bytes(b"x")
    return folder


def _split(output: Path, source: str) -> dict[str, set[str]]:
    return {split: {p.name for p in (output / source / split / "real").glob("*")} for split in ("train", "valid")}


def test_a_person_is_in_one_split(tmp_path, portraits):
    assert main(["--source", f"a={portraits}", "--output", str(tmp_path / "out")]) == 0
    found = _split(tmp_path / "out", "a")
    persons = {split: {name.partition("_")[2] for name in names} for split, names in found.items()}
    assert not persons["train"] & persons["valid"]
    assert len(found["train"]) + len(found["valid"]) == 120
    assert found["valid"]


def test_the_manifest_says_who_it_is(tmp_path, portraits):
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "person"])
        writer.writerows([f"portraits/{path.name}", "one and the same"] for path in portraits.glob("*"))
    arguments = ["--source", f"a={portraits}", "--output", str(tmp_path / "out"), "--manifest", str(manifest)]
    assert main(arguments) == 0
    assert sorted(map(len, _split(tmp_path / "out", "a").values())) == [0, 120]


def test_a_manifest_written_elsewhere_is_understood(tmp_path, portraits):
    """With backslashes, and with accents as characters of their own: else a person would be in both splits."""
    for name in ("house_zoë.jpg", "senate_zo\u0065\u0308.jpg"):
        (portraits / name).touch()
    manifest = tmp_path / "manifest.csv"
    rows = ["portraits\\house_zo\u0065\u0308.jpg,Zoë", "portraits\\senate_zoë.jpg,Zoë"]
    manifest.write_text("\n".join(["file,person", *rows]), encoding="utf-8")
    known = persons(manifest)
    assert len(known) == 2
    arguments = ["--source", f"a={portraits}", "--output", str(tmp_path / "out"), "--manifest", str(manifest)]
    assert main(arguments) == 0
    splits = _split(tmp_path / "out", "a")
    assert sorted(len([name for name in names if "zo" in name]) for names in splits.values()) == [0, 2]


def test_portraits_are_told_by_content_and_the_others_named(tmp_path, portraits, capsys):
    for name in ("house_a", "house_b.jfif", "house_c.heic"):
        (portraits / name).write_bytes(b"\xff\xd8\xff" if name != "house_c.heic" else b"\0\0\0\x18ftypheic")
    (portraits / "notes.txt").touch()
    assert main(["--source", f"a={portraits}", "--output", str(tmp_path / "out")]) == 0
    found = set().union(*_split(tmp_path / "out", "a").values())
    assert {"house_a", "house_b.jfif", "house_c.heic"} < found
    assert "1 files are no images and were passed over: notes.txt" in capsys.readouterr().err


def test_a_folder_without_images_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--source", f"a={tmp_path}", "--output", str(tmp_path / "out")])
    assert "NAME=DIR" in capsys.readouterr().err
