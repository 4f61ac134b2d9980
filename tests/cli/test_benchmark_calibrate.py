"""benchmarks/benchmark_calibrate.py on a few images: the real command runs, and every figure is there."""

from __future__ import annotations

import json

import pytest

from tests.conftest import load_benchmark

pytest.importorskip("lir", reason="the extra `calibration` is not installed")


def test_it_runs_the_command_and_writes_what_it_took(tmp_path, capfd):
    output = tmp_path / "figures.json"
    assert load_benchmark("benchmark_calibrate").main(["--images", "600", "--json", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["images"] == 600
    assert found["seconds"] > 0
    assert found["processor_seconds"] > 0
    assert 0.1 < found["gigabytes"] < 4
    assert "held out, 5 folds of 600 images" in capfd.readouterr().out
