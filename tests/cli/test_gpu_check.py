"""`make gpu-check`: what it says without a GPU, and its steps in miniature."""

from __future__ import annotations

import json

import pytest
import torch

from tests.conftest import load_benchmark


@pytest.fixture(scope="module")
def tool():
    return load_benchmark("gpu_check")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tool, tmp_path, capsys):
    assert tool.main(["--output", str(tmp_path)]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_steps_on_the_cpu(tool, tmp_path, capsys):
    words = ["--device", "cpu", "--output", str(tmp_path), "--only", "op_speed", "float16", "two_processes"]
    assert tool.main(words) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["step"], row["outcome"]) for row in summary["steps"]] == [
        ("op_speed", "passed"),
        ("float16", "left out"),
        ("two_processes", "left out"),
    ]
    assert summary["steps"][0]["figures"]
    assert "needs two GPUs" in capsys.readouterr().out


def test_a_step_that_fails_costs_no_other(tool, tmp_path, monkeypatch):
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"total_loss": 1.5}\n{"total_loss": NaN}\n')
    steps = [
        tool.Step("wrong", [tool.PYTHON, "-c", "raise SystemExit(3)"], 30),
        tool.Step("slow", [tool.PYTHON, "-c", "import time; time.sleep(60)"], 1),
        tool.Step("nan", [tool.PYTHON, "-c", ""], 30, metrics),
        tool.Step("right", [tool.PYTHON, "-c", ""], 30),
    ]
    monkeypatch.setattr(tool, "list_steps", lambda device, folder: steps)
    assert tool.main(["--device", "cpu", "--output", str(tmp_path)]) == 1
    found = [(row["outcome"], row["why"]) for row in json.loads((tmp_path / "summary.json").read_text())["steps"]]
    assert found == [
        ("failed", "exit code 3"),
        ("failed", "longer than 1 s"),
        ("failed", "a loss is not finite, or none was written"),
        ("passed", ""),
    ]


def test_an_unknown_step(tool, tmp_path):
    with pytest.raises(SystemExit):
        tool.main(["--device", "cpu", "--output", str(tmp_path), "--only", "nothing"])
