"""benchmarks/benchmark_tokens.py on tiny images: both trainings lose the same, and every figure is there."""

from __future__ import annotations

import json

import pytest
import torch

from tests.conftest import load_benchmark


@pytest.fixture
def tool(monkeypatch):
    """The tool, whose settings for a whole process do not outlive the test."""
    tool = load_benchmark("benchmark_tokens")
    monkeypatch.setattr(tool, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield tool
    torch.set_num_threads(threads)


def test_figures(tool, tiny_set, tmp_path, capsys):
    words = ["--data", str(tiny_set), "--folder", str(tmp_path), "--images", "8", "--batch-size", "2"]
    small = ["--steps-on-images", "3", "--json", str(tmp_path / "f.json"), "--opts", "MODEL.LOUPE.INPUT_SIZE", "32"]
    assert tool.main([*words, *small]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["steps"], figures["steps_on_images"], len(figures["losses"]["tokens"])) == (4, 3, 4)
    assert figures["largest_relative_difference"] < 1e-5
    # 8 images of 2 x 2 tokens, their mean and the class token, of 192 channels in fp32; and the files' headers.
    assert figures["bytes"] == pytest.approx(8 * 6 * 192 * 4, rel=0.1)
    seconds = figures["seconds_of_an_epoch"]
    assert figures["times_faster"]["wall"] == pytest.approx(seconds["images"]["wall"] / seconds["tokens"]["wall"])
    assert "losses of 3 steps differ by at most" in capsys.readouterr().out
