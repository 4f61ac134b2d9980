"""The challenge's submission: the exact format, and everything that would break its rules."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.errors import StoreError, SubmissionError
from ddl_d2.io.image import read_map
from ddl_d2.predictions.layout import map_path
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.submission import export_submission, read_submission, validate_submission
from ddl_d2.predictions.writer import PredictionStoreWriter

SIZES = {"000001.png": (4, 6), "000002.png": (3, 3), "000003.jpg": (5, 2)}


def _store(
    root: Path, names=("test/000001.png", "test/000002.png", "000003.jpg"), maps: bool = True
) -> PredictionStore:
    scores = [0.99314, 0.5, 0.00004]
    with PredictionStoreWriter(root) as writer:
        for number, name in enumerate(names):
            size = list(SIZES.values())[number % 3]
            forgery_map = np.full(size, 127, np.uint8)
            forgery_map[0, : number + 1] = 128  # just above one half
            writer.add(name, scores[number % 3], forgery_map if maps else None)
    return PredictionStore(root)


def test_format(tmp_path):
    path = tmp_path / "new" / "submission.zip"
    assert export_submission(_store(tmp_path / "store"), path) == 3
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        members = ["prediction.txt", "mask/000003.png", "mask/000001.png", "mask/000002.png"]
        assert sorted(archive.namelist()) == sorted(members)
        text = archive.read("prediction.txt").decode()
        archive.extractall(tmp_path / "unpacked")
    assert sorted(text.splitlines()) == ["000001.png,0.9931", "000002.png,0.5000", "000003.jpg,0.0000"]
    assert text.endswith("\n")
    mask = read_map(tmp_path / "unpacked" / "mask" / "000002.png")
    assert mask.tolist() == [[255, 255, 0], [0, 0, 0], [0, 0, 0]]


def test_round_trip_and_validation(tmp_path):
    path = tmp_path / "submission.zip"
    export_submission(_store(tmp_path / "store"), path)
    submission = validate_submission(path, SIZES)
    assert submission.scores == {"000001.png": 0.9931, "000002.png": 0.5, "000003.jpg": 0.0}
    assert [int(submission.read_mask(name).sum()) for name in SIZES] == [1, 2, 2]  # 000003 is two pixels wide
    with pytest.raises(SubmissionError, match=r"000004\.png is missing"):
        validate_submission(path, {**SIZES, "000004.png": (1, 1)})
    with pytest.raises(SubmissionError, match=r"000003\.jpg is unexpected"):
        validate_submission(path, {name: size for name, size in SIZES.items() if name != "000003.jpg"})
    with pytest.raises(SubmissionError, match=r"mask of 000001\.png is \(4, 6\), the image \(6, 4\)"):
        validate_submission(path, {**SIZES, "000001.png": (6, 4)})


def test_two_exports_are_byte_identical(tmp_path):
    store = _store(tmp_path / "store")
    for name in ("one.zip", "two.zip"):
        export_submission(store, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_threshold(tmp_path):
    export_submission(_store(tmp_path / "store"), tmp_path / "submission.zip", threshold=0.4)
    assert read_submission(tmp_path / "submission.zip").read_mask("000001.png").all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("real/a.png", "fake/a.png"), "fake/a.png and real/a.png would share mask/a.png"),
        (("a.jpg", "a.png"), "a.jpg and a.png would share mask/a.png"),
        (("a,b.png",), "a comma in the file name"),
        ((), "the store has none"),
    ],
)
def test_stores_that_do_not_fit_the_format(tmp_path, names, message):
    path = tmp_path / "submission.zip"
    path.write_bytes(b"an older one")
    with pytest.raises(SubmissionError, match=message):
        export_submission(_store(tmp_path / "store", names), path)
    assert path.read_bytes() == b"an older one"


def test_scores_alone_are_no_submission(tmp_path):
    with pytest.raises(SubmissionError, match="the store has none"):
        export_submission(_store(tmp_path / "store", maps=False), tmp_path / "submission.zip")


def test_a_failed_export_leaves_the_old_file(tmp_path):
    store, path = _store(tmp_path / "store"), tmp_path / "submission.zip"
    export_submission(store, path)
    before = path.read_bytes()
    map_path(store.root, "test/000002.png").write_bytes(b"no PNG")
    with pytest.raises(StoreError, match=r"000002\.png"):
        export_submission(store, path)
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["store", "submission.zip"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "prediction.txt is missing"),
        ({"prediction.txt": b"a.png,0.5\n"}, "mask/a.png is missing"),
        ({"prediction.txt": b"", "mask/a.png": b""}, "mask/a.png is unexpected"),
        ({"prediction.txt": b"a.png 0.5\n"}, "line 1 is not"),
        ({"prediction.txt": b"a.png,nan\n"}, "line 1 is not"),
        ({"prediction.txt": b"a.png,1.5\n"}, "line 1 is not"),
        ({"prediction.txt": b"a.png,0.5\na.png,0.5\n"}, "line 2 repeats a.png"),
        ({"prediction.txt": b"\xff,0.5\n"}, "cannot be read"),
    ],
)
def test_broken_submissions_are_refused(tmp_path, members, message):
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(SubmissionError, match=message):
        read_submission(path)


def test_broken_masks_are_refused(tmp_path):
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    store = _store(tmp_path / "store")
    export_submission(store, good)
    gray = map_path(store.root, "test/000001.png").read_bytes()
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            replaced = {"mask/000001.png": gray, "mask/000002.png": b"no PNG"}
            target.writestr(name, replaced.get(name, source.read(name)))
    submission = read_submission(bad)
    with pytest.raises(SubmissionError, match="other than 0 and 255"):
        submission.read_mask("000001.png")
    with pytest.raises(SubmissionError, match=r"mask of 000002\.png cannot be read"):
        submission.read_mask("000002.png")
    with pytest.raises(SubmissionError, match="is missing"):
        submission.read_mask("000009.png")
    (tmp_path / "no.zip").write_bytes(b"not a zip")
    with pytest.raises(SubmissionError, match="cannot be read"):
        read_submission(tmp_path / "no.zip")
