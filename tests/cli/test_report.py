"""`ddl-d2 report`: the figures of compare and evaluate to the last printed digit, and one-line errors."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.cli import compare, evaluate, predict, report
from ddl_d2.io.atomic import write_json
from ddl_d2.report import pdf
from tests.fusion.small_stores import write_images, write_store
from tests.report.conftest import photo, tiny_weights  # noqa: F401  fixtures
from tests.report.test_judged import CALIBRATION

SIZE = (12, 10)
COMMON = ["--split", "valid", "--resamples", "100"]


@pytest.fixture
def masks(rng) -> dict[str, np.ndarray | None]:
    """Twelve fakes and twelve reals."""
    fakes = {f"fake/f{number}.png": rng.random(SIZE) < 0.4 for number in range(12)}
    return {**fakes, **dict.fromkeys((f"real/r{number}.png" for number in range(12)), None)}


@pytest.fixture
def data(masks, tmp_path) -> Path:
    write_images(tmp_path / "data/valid", masks, SIZE)
    return tmp_path / "data"


@pytest.fixture
def stores(masks, tmp_path, rng) -> list[str]:
    """Two systems; the second gives no maps."""
    for name in ("first", "second"):
        scores = {key: float(rng.beta(3, 2) if mask is not None else rng.beta(2, 3)) for key, mask in masks.items()}
        maps = {key: rng.integers(0, 256, SIZE) for key in masks} if name == "first" else None
        write_store(tmp_path / name, scores, maps)
    return [str(tmp_path / "first"), str(tmp_path / "second")]


def cells(page: str) -> dict[str, list[list[str]]]:
    """The rows of each table of a page, by its caption."""
    found = {}
    for caption, body in re.findall(r"<caption>(.*?)</caption>.*?<tbody>(.*?)</tbody>", page, re.S):
        rows = [re.findall(r"<td>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)]
        found[html.unescape(caption)] = [[html.unescape(cell) for cell in row] for row in rows]
    return found


def run(*words) -> None:
    assert report.main([str(word) for word in words]) == 0


def fails(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stopped:
        report.main([str(word) for word in words])
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.filterwarnings("ignore::ddl_d2.evaluation.functional.UndefinedMetricWarning")
def test_every_printed_figure_is_that_of_compare_and_evaluate(stores, data, tmp_path, capsys):
    run(*stores, "--dataset-root", data, *COMMON, "--output", tmp_path / "report.html")
    found = cells((tmp_path / "report.html").read_text())
    title = next(caption for caption in found if caption.startswith("Metrics, with 95 %"))
    capsys.readouterr()
    assert compare.main([*stores, "--dataset-root", str(data), *COMMON]) == 0
    compared = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in compared.splitlines()]
    for row in (row for rows in found.values() for row in rows if row[0] in ("auc", "f1", "iou", "ap", "num_images")):
        assert " ".join(cell for cell in row if cell) in lines
    assert title in compared
    for place, store in enumerate(stores, 1):
        assert evaluate.main(["--predictions", store, "--dataset-root", str(data), "--split", "valid"]) == 0
        printed = capsys.readouterr().out.splitlines()
        of_evaluate = {words[0]: words[1] for words in map(str.split, printed[2:]) if len(words) > 1}
        values = {row[0]: row[place].split(" ")[0] for row in found[title] if row[place]}
        assert len(values) > 12
        assert values == {key: of_evaluate[key] for key in values}


def test_the_legend_of_a_curve_has_the_same_figure(stores, data, tmp_path):
    run(stores[0], "--dataset-root", data, *COMMON, "--output", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    rows = next(rows for caption, rows in cells(page).items() if caption.startswith("Metrics"))
    assert f"first: AUC {dict(row[:2] for row in rows)['auc']}" in page
    assert "Uncalibrated" in page


def test_the_calibration_in_a_store_is_used(stores, data, tmp_path):
    write_json(Path(stores[0]) / "calibration.json", CALIBRATION.to_json())
    pytest.importorskip("lir", reason="needs the extra calibration")
    run(stores[0], "--dataset-root", data, *COMMON, "--output", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"fingerprint {CALIBRATION.fingerprint}" in page
    assert "Reliability diagram and Tippett plot" in page
    assert "Inconclusive" in page


def test_a_calibration_of_another_model_is_refused(stores, data, tmp_path, capsys):
    content = CALIBRATION.to_json() | {"weights_sha256": "0" * 64}
    write_json(tmp_path / "other.json", content)
    words = [stores[0], "--dataset-root", data, *COMMON, "--output", tmp_path / "report.html"]
    assert "was made for other weights" in fails(capsys, *words, "--calibration", tmp_path / "other.json")
    assert not (tmp_path / "report.html").exists()


def test_robustness_is_shown(stores, data, tmp_path, capsys):
    figures = {"auc": 0.75, "f1": 0.5, "iou": 0.4, "false_alarms": 0.1, "found": 0.5, "ece": 0.1, "flips": 0.2}
    content = {
        "weights": "a/model.safetensors", "dataset": "set", "split": "valid", "num_images": 24, "fragile": None,
        "means": figures | {"auc": 0.7}, "conditions": {"none/0": figures, "jpeg/1": figures | {"auc": 0.7}},
    }  # fmt: skip
    write_json(tmp_path / "robustness.json", content)
    words = [stores[0], "--dataset-root", data, *COMMON, "--output", tmp_path / "report.html"]
    run(*words, "--robustness", tmp_path / "robustness.json")
    page = (tmp_path / "report.html").read_text()
    assert "model on set/valid, 24 images: mean AUC under corruption 0.700 (as they are 0.750)" in page
    (tmp_path / "robustness.json").write_text("{}")
    assert "not the robustness.json" in fails(capsys, *words, "--robustness", tmp_path / "robustness.json")


def test_predicted_files_have_a_report_without_labels(photo, tiny_weights, tmp_path):  # noqa: F811  the fixtures
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    weights = ["--weights", str(tiny_weights / "0.safetensors"), "--device", "cpu"]
    words = [str(photo), str(tmp_path / "bad.jpg"), *weights, "--output", str(tmp_path / "out"), "--fragility"]
    assert predict.main(words) == 1
    run(tmp_path / "out", "--output", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    row = json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[1])
    assert html.escape(row["fragility"]["reason"]) in page
    assert f"<dt>Score</dt><dd>{row['score']:.4f}</dd>" in page
    assert "bad.jpg" in page
    assert page.count('<article class="card') == 1


def test_bad_arguments_are_one_line(stores, data, tmp_path, capsys, monkeypatch):
    output = ["--output", tmp_path / "report.html"]
    assert "--dataset-root is needed" in fails(capsys, stores[0], *output)
    assert "ends in .html" in fails(capsys, stores[0], "--output", tmp_path / "report.txt")
    assert "there is no such folder" in fails(capsys, tmp_path / "none", "--dataset-root", data, *output)
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    assert "apt install chromium" in fails(capsys, stores[0], "--dataset-root", data, *output, "--pdf")
    assert not (tmp_path / "report.html").exists()
