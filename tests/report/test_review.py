"""The order in which people look at results."""

import csv
import json

import pytest

from ddl_d2.cli import predict, review
from ddl_d2.errors import InputError
from ddl_d2.report.review import in_review_order, read_results, review_page

CALIBRATED = [
    {"file": "sure.jpg", "verdict": "forged", "log10_lr": 1.2, "score": 0.9, "threshold": 0.5},
    {"file": "sure_too.jpg", "verdict": "no forgery found", "log10_lr": -1.4, "score": 0.1, "threshold": 0.5},
    {"file": "open_more.jpg", "verdict": "inconclusive", "log10_lr": 0.1, "score": 0.6, "threshold": 0.5},
    {"file": "open.jpg", "verdict": "inconclusive", "log10_lr": -0.3, "score": 0.4, "threshold": 0.5},
    {"file": "no_face.jpg", "verdict": "no face found", "log10_lr": None, "score": None, "threshold": 0.5},
    {"file": "bad.jpg", "error": "cannot be decoded"},
    {"file": "less_sure.jpg", "verdict": "forged", "log10_lr": 0.8, "score": 0.8, "threshold": 0.5},
]


def test_what_is_open_comes_first_and_what_is_sure_last():
    assert [row["file"] for row in in_review_order(CALIBRATED)] == [
        "open_more.jpg",
        "open.jpg",
        "bad.jpg",
        "no_face.jpg",
        "less_sure.jpg",
        "sure.jpg",
        "sure_too.jpg",
    ]


def test_without_a_calibration_the_distance_from_the_threshold_counts():
    rows = [
        {"file": name, "verdict": "real", "log10_lr": None, "score": score, "threshold": 0.3}
        for name, score in (("far.jpg", 0.9), ("near.jpg", 0.31), ("middle.jpg", 0.1))
    ]
    assert [row["file"] for row in in_review_order(rows)] == ["near.jpg", "middle.jpg", "far.jpg"]


def test_the_page_escapes_what_it_shows():
    html = review_page([{"file": "<b>.jpg", "verdict": "real", "score": 0.1, "threshold": 0.5, "overlay": "a b#.png"}])
    assert "&lt;b&gt;.jpg" in html
    assert 'href="a%20b%23.png"' in html


def test_the_results_of_predict_are_listed(photo, tiny_weights, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    weights = str(tiny_weights / "0.safetensors")
    words = [str(photo), str(tmp_path / "bad.jpg"), "--weights", weights, "--device", "cpu"]
    assert predict.main([*words, "--output", str(tmp_path / "out")]) == 1
    capsys.readouterr()
    assert review.main([str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "bad.jpg" in out[0]
    assert "photo.jpg" in out[1]
    found = json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[1])
    with open(tmp_path / "out/review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["failed", found["verdict"]]
    assert (tmp_path / "out" / rows[1]["overlay"]).is_file()
    # The page is no input of a later prediction.
    assert predict.main([*words, "--output", str(tmp_path / "out")]) == 1


def test_what_is_no_folder_of_results_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"results\.jsonl: no such file"):
        read_results(tmp_path)
    (tmp_path / "results.jsonl").write_text("{}\nx\n")
    with pytest.raises(InputError, match="line 1"):
        read_results(tmp_path)
