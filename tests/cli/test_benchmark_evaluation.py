"""benchmarks/benchmark_evaluation.py on four images: it evaluates them, and its figures add up."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

from ddl_d2.io.image import read_image
from ddl_d2.predictions.store import PredictionStore
from tests.conftest import ROOT, load_benchmark, make_tiny_set


@pytest.fixture(scope="module")
def tool():
    return load_benchmark("benchmark_evaluation")


def test_images_are_repeated_and_enlarged(tool, tmp_path):
    tool.copy_images(make_tiny_set(tmp_path / "set", valid=1), tmp_path / "data", 4, 96)
    files = sorted(path.relative_to(tmp_path / "data/valid").as_posix() for path in tmp_path.glob("data/valid/*/*"))
    assert files == [f"{kind}/0000{n}.png" for kind in ("fake", "masks", "real") for n in (0, 1)]
    assert read_image(tmp_path / "data/valid/fake/00001.png", max_pixels=10**5).shape == (96, 96, 3)
    mask = read_image(tmp_path / "data/valid/masks/00001.png", max_pixels=10**5)
    assert sorted(np.unique(mask)) == [0, 255]


def test_an_evaluation(tool, tmp_path):
    tool.copy_images(make_tiny_set(tmp_path / "set", valid=2), tmp_path / "data", 4, 0)
    weights = ROOT / "weights/eyes_lite0.safetensors"
    args = Namespace(threads=1, workers=0, config_file="release/eyes_lite0", weights=weights)
    run = tool.evaluate(ROOT, args, tmp_path / "data", tmp_path / "out")
    assert run["metrics"]["num_images"] == 4
    assert run["cpu"] > 0
    assert run["wall"] > 0
    store = PredictionStore(tmp_path / "out/inference/ddl_i_valid/predictions")
    assert len(store) == 4
    assert len(run["predictions"]) == 64


def test_medians_and_ratios(tool):
    args = Namespace(threads=1, against="abc", count=4, side=0, workers=1)
    after = [{"wall": wall, "cpu": 1.0, "metrics": {"auc": 1}} for wall in (4.0, 1.0, 2.0)]
    before = [{"wall": wall, "cpu": 3.0, "metrics": {"auc": 1}} for wall in (4.0, 5.0, 9.0)]
    figures = tool.report(args, {"before": before, "after": after})
    assert figures["times_as_fast"] == {"wall": 2.5, "cpu": 3.0}
