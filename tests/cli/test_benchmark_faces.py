"""benchmarks/benchmark_faces.py on tiny images: it compares before it measures, and its figures add up."""

from __future__ import annotations

import json
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch

from ddl_d2.data import build_faces
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.face import Face
from ddl_d2.io.image import write_png
from tests.conftest import ROOT, TINY, load_benchmark

CONFIG = ROOT / "configs/two_cores/swin_unet_efficientnet_lite0.yaml"


class _Finder:
    settings: ClassVar = {"name": "test"}

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return [Face((4, 4, 20, 20), np.full((5, 2), 9.0)), Face((30, 8, 50, 30), np.full((5, 2), 40.0))]


@pytest.fixture(scope="module")
def tool():
    return load_benchmark("benchmark_faces")


@pytest.fixture(autouse=True)
def _as_before(tool, monkeypatch):
    """The tool's settings for a whole process do not outlive the test."""
    monkeypatch.setattr(tool, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


@pytest.fixture
def finder(monkeypatch, tmp_path):
    finder = _Finder()
    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: CachedFaceFinder(finder, tmp_path / "unused"))
    return finder


@pytest.fixture
def arguments(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write_png(tmp_path / "in" / f"{name}.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    opts = [*TINY, "INPUT.MIN_SIZE_TEST", "32", "INPUT.MAX_SIZE_TEST", "64"]
    words = ["--config-file", CONFIG, "--images", tmp_path / "in", "--count", 2, "--threads", 1, "--rounds", 2]
    return [str(word) for word in (*words, "--json", tmp_path / "figures.json", "--opts", *opts)]


def test_figures(tool, tmp_path, finder, arguments, capsys):
    assert tool.main(arguments) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["equal"] is True
    assert (figures["images"], figures["crops_per_image"]) == (2, 2)
    assert set(figures["ms"]) == {*tool.STAGES, *tool.WHOLE}
    assert all(0 < figures["ms_minimum"][name] <= ms for name, ms in figures["ms"].items())
    assert figures["images_per_second"]["forward"] == pytest.approx(1000 / figures["ms"]["forward"])
    # Each of 2 images is searched twice a round (by stages, and from the file on), in 1 + 2 rounds.
    assert finder.calls == 2 * 2 * 3
    assert not (tmp_path / "unused").exists()  # the user's memory of faces is not touched
    printed = capsys.readouterr().out
    assert "detect, cold" in printed
    assert "2 images of 2.00 crops" in printed


def test_what_differs_is_not_timed(tool, tmp_path, finder, arguments, monkeypatch):
    monkeypatch.setattr(tool, "same_prediction", lambda *_: False)
    with pytest.raises(SystemExit, match=r"a\.png: the stages give another prediction"):
        tool.main(arguments)
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--count", "0"], ["--threads", "0"], ["--images", "/nowhere"]])
def test_bad_arguments(tool, arguments, wrong):
    before = arguments.index("--opts")
    with pytest.raises(SystemExit) as stopped:
        tool.main([*arguments[:before], *wrong, *arguments[before:]])
    assert stopped.value.code == 2
