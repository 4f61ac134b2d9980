"""A comparison as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from ddl_d2.errors import InputError
from ddl_d2.evaluation.compared import Breakdown, Difference, Figure, Group, SystemComparison
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
    breakdowns=[
        Breakdown(
            "source",
            True,
            [
                Group(
                    "easy",
                    2,
                    1,
                    {"a_1": {"auc": Figure(0.9, 0.8, 1.0), "false_alarms": Figure(0.5, 0.0, 1.0)}, "b|2": {}},
                ),
                Group(
                    "hard",
                    1,
                    2,
                    {"a_1": {"auc": Figure(0.4, 0.2, 0.6), "false_alarms": Figure(1.0, 1.0, 1.0)}, "b|2": {}},
                ),
            ],
            {"a_1": Figure(0.65, 0.5, 0.8)},
        ),
        Breakdown(
            "forgery type", False, [Group("swap", 3, 0, {"a_1": {"found": Figure(0.25, 0.0, 0.5)}, "b|2": {}})], {}
        ),
    ],
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
    assert latex.count("\\begin{tabular}") == latex.count("\\bottomrule") == 5
    assert "a\\_1" in latex
    assert latex.startswith("% Metrics, with 95 % intervals of 1000 resamples of 3 videos\n")


def test_as_csv():
    lines = list(csv.reader(comparison_file(FOUND, Path("x.csv"), {}).splitlines()))
    assert lines[0] == ["system", "minus", "metric", "value", "low", "high", "p", "method", "sorted_by", "group"]
    assert ["a_1", "", "auc", "0.75", "0.5", "0.9", "", "bootstrap", "", ""] in lines
    assert ["a_1", "", "f1", "", "", "", "", "bootstrap", "", ""] in lines
    assert ["b|2", "", "num_images", "4", "", "", "", "", "", ""] in lines
    assert ["b|2", "a_1", "auc", "-0.25", "-0.5", "0.125", "0.03", "DeLong", "", ""] in lines
    assert {len(line) for line in lines} == {10}
    assert ["a_1", "", "auc", "0.4", "0.2", "0.6", "", "bootstrap", "source", "hard"] in lines
    assert ["a_1", "", "auc", "0.65", "0.5", "0.8", "", "bootstrap", "source", ""] in lines
    assert ["b|2", "", "num_real", "2", "", "", "", "", "source", "hard"] in lines


def test_parts_come_worst_first():
    text = comparison_text(FOUND)
    fakes, alarms = (
        text.index("By source, worst AUC first; AUC is against the real"),
        text.index("False alarms by source"),
    )
    assert (
        fakes < text.index("hard", fakes) < text.index("easy", fakes) < text.index("mean of the AUCs", fakes) < alarms
    )
    assert alarms < text.index("hard", alarms) < text.index("easy", alarms)
    lines = [line.split() for line in text[fakes:alarms].splitlines() if line]
    assert ["hard", "a_1", "1", "2", "0.400", "[0.200,", "0.600]"] in lines
    assert ["AUC", "of", "all", "together", "a_1", "0.750", "[0.500,", "0.900]"] in lines
    assert "AUC is against all real images" in text[alarms:]
    assert "False alarms by forgery type" not in text


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
    source = content["breakdowns"]["source"]
    assert source["mean_auc"] == {"a_1": {"value": 0.65, "low": 0.5, "high": 0.8}}
    assert source["groups"]["hard"]["num_real"] == 2
    assert source["groups"]["hard"]["systems"]["a_1"]["auc"]["value"] == 0.4


def test_another_suffix_is_refused():
    with pytest.raises(InputError, match=r"x.pdf: the comparison is written as \.md, \.tex, \.csv, \.json"):
        comparison_file(FOUND, Path("x.pdf"), {})
