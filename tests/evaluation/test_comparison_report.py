"""A comparison as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from ddl_d2.errors import InputError
from ddl_d2.evaluation.comparison import Difference, Figure, SystemComparison
from ddl_d2.evaluation.comparison_report import comparison_file, comparison_text

NAN = math.nan
FOUND = SystemComparison(
    figures={
        "a_1": {"auc": Figure(0.75, 0.5, 0.9), "f1": Figure(NAN, NAN, NAN)},
        "b|2": {"auc": Figure(0.5, 0.25, 0.75), "f1": Figure(0.5, NAN, NAN)},
    },
    counts={"a_1": {"num_images": 4}, "b|2": {"num_images": 4}},
    differences={
        "b|2": {
            "auc": Difference(-0.25, -0.5, 0.125, 0.03, "DeLong"),
            "f1": Difference(NAN, NAN, NAN, NAN, "bootstrap"),
        }
    },
    unit="videos",
    num_units=3,
    resamples=1000,
)


def test_as_text():
    text = comparison_text(FOUND)
    assert "Metrics, with 95 % intervals of 1000 resamples of 3 videos" in text
    lines = [line.split() for line in text.splitlines() if line]
    assert [
        "auc",
        "0.7500",
        "[0.5000,",
        "0.9000]",
        "0.5000",
        "[0.2500,",
        "0.7500]",
        "ROC",
        "AUC,",
        "all",
        "images",
    ] in lines
    assert ["num_images", "4", "4", "images"] in lines
    assert "b|2 minus a_1, on the same images, with 95 % intervals" in text
    assert ["auc", "-0.2500", "[-0.5000,", "+0.1250]", "0.0300", "DeLong"] in lines
    assert ["f1", "n/a", "n/a", "bootstrap"] in lines


def test_as_markdown_and_latex():
    markdown = comparison_file(FOUND, Path("x.md"), {})
    head = next(line for line in markdown.splitlines() if line.startswith("| metric"))
    assert [cell.strip() for cell in head.replace("\\|", "/").split("|")[1:-1]] == ["metric", "a_1", "b/2", "meaning"]
    latex = comparison_file(FOUND, Path("x.tex"), {})
    assert latex.count("\\begin{tabular}") == latex.count("\\bottomrule") == 2
    assert "a\\_1" in latex
    assert latex.startswith("% Metrics, with 95 % intervals of 1000 resamples of 3 videos\n")


def test_as_csv():
    lines = list(csv.reader(comparison_file(FOUND, Path("x.csv"), {}).splitlines()))
    assert lines[0] == ["system", "minus", "metric", "value", "low", "high", "p", "method"]
    assert ["a_1", "", "auc", "0.75", "0.5", "0.9", "", "bootstrap"] in lines
    assert ["a_1", "", "f1", "", "", "", "", "bootstrap"] in lines
    assert ["b|2", "", "num_images", "4", "", "", "", ""] in lines
    assert ["b|2", "a_1", "auc", "-0.25", "-0.5", "0.125", "0.03", "DeLong"] in lines
    assert {len(line) for line in lines} == {8}


def test_as_json():
    content = json.loads(comparison_file(FOUND, Path("x.json"), {"seed": 3}))
    assert content["seed"] == 3
    assert (content["first"], content["unit"], content["num_units"], content["resamples"]) == ("a_1", "videos", 3, 1000)
    assert content["systems"]["a_1"] == {
        "auc": {"value": 0.75, "low": 0.5, "high": 0.9},
        "f1": {"value": None, "low": None, "high": None},
        "num_images": 4,
    }
    assert content["differences"]["b|2"]["auc"]["method"] == "DeLong"


def test_another_suffix_is_refused():
    with pytest.raises(InputError, match=r"x.pdf: the comparison is written as \.md, \.tex, \.csv, \.json"):
        comparison_file(FOUND, Path("x.pdf"), {})
