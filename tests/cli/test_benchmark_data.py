"""benchmarks/benchmark_data.py on tiny images: it checks before it measures, and its figures add up."""

from __future__ import annotations

import json
import sys

import cv2
import pytest
import torch

from tests.conftest import load_benchmark


@pytest.fixture(scope="module")
def tool():
    return load_benchmark("benchmark_data")


@pytest.fixture(autouse=True)
def _as_before(tool, monkeypatch):
    """The tool's settings for a whole process do not outlive the test."""
    monkeypatch.setattr(tool, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def _figures(tool, tmp_path, *arguments: str) -> dict:
    path = tmp_path / "figures.json"
    assert tool.main(["--rounds", "1", "--count", "2", "--json", str(path), *arguments]) == 0
    return json.loads(path.read_text())


@pytest.mark.parametrize("mask_bits", ["1", "8"])
def test_made_images(tool, tmp_path, capsys, mask_bits):
    figures = _figures(tool, tmp_path, "--size", "200", "--mask-bits", mask_bits)
    checks = figures["checks"]
    assert checks["shapes_equal"] is True
    assert checks["images_equal"] is True
    assert checks["masks_equal"] is True
    assert checks["mean_after_color"] < 1
    assert checks["mask_pixels_differ_from_nearest"] < 0.05
    assert set(figures["ratios"]) == {"train", "train, fake", "train, real", "test"}
    assert all(ratio > 0 for ratio in figures["ratios"].values())
    assert figures["images_per_second_per_core"]["train loader"] > 0
    for stages in (figures["tasks"]["train, fake"]["stages_ms"][name] for name in ("usual", "ddl_d2")):
        assert {"decode", "mask decode", "resize", "color", "tensor"} <= set(stages)
    assert "times the usual mapper" in capsys.readouterr().out


def test_a_data_set(tool, tmp_path, tiny_set):
    figures = _figures(tool, tmp_path, "--dataset", str(tiny_set), "--split", "train", "--allocator", "default")
    assert figures["allocator"] == "default"
    assert figures["checks"]["images_equal"] is True
    assert figures["checks"]["compared"] == 8  # two fakes, two reals, and the four of them for the test


def test_what_differs_is_not_timed(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[tool.compare_all.__module__], "_difference", lambda *_: (3.0, 0.5))
    with pytest.raises(SystemExit, match="do not give the same images"):
        _figures(tool, tmp_path, "--size", "200")
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--count", "0"], ["--size", "8"], ["--dataset", "/nowhere"]])
def test_bad_arguments(tool, arguments):
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code == 2
