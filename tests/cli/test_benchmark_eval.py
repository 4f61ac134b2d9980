"""benchmarks/benchmark_eval.py on tiny inputs: all candidates agree, and every figure is there."""

from __future__ import annotations

import json
import math
import sys
import types

import pytest
import torch

from tests.conftest import load_benchmark


@pytest.fixture(scope="module")
def tool():
    return load_benchmark("benchmark_eval")


@pytest.fixture(autouse=True)
def _as_before(tool, monkeypatch):
    """The tool's settings for a whole process do not outlive the test."""
    monkeypatch.setattr(tool, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(tool, "STORED_SIZE", 32)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


SMALL = ["--scores", "300", "--size", "64", "--maps", "4", "--rounds", "1"]


def test_figures(tool, tmp_path, capsys):
    assert tool.main([*SMALL, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    for task in figures["tasks"].values():
        assert task["equal"] is True
        assert all(ms > 0 for ms in task["ms"].values())
    assert set(figures["targets"]) <= set(figures["ratios"])  # scikit-learn and torchmetrics are there in tests
    assert all(ratio > 0 for ratio in figures["ratios"].values())
    assert figures["state"]["bytes_per_image"] < 80
    store = figures["store"]
    assert store["equal"] is True
    assert 0 < store["share_decoding"] < 1
    parts = dict(store["ms_per_image"])
    assert math.isclose(parts.pop("total"), sum(parts.values()), rel_tol=0.5)  # medians, each of its own
    assert "times faster: image AUC / scikit-learn" in capsys.readouterr().out


def test_candidates_may_be_missing(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "_optional", lambda module: None)
    assert tool.main(SMALL) == 0
    assert "torchmetrics" not in capsys.readouterr().out.splitlines()[-1]


def test_candidates_that_disagree_are_not_timed(tool, monkeypatch):
    monkeypatch.setattr(tool.BencoArithmetic, "f1_iou", lambda *_: (0.5, 0.5))
    with pytest.raises(SystemExit, match="disagree"):
        tool.main(SMALL)


def test_the_package_is_preferred_to_its_arithmetic(tool, monkeypatch):
    """IMDL-BenCo's classes, were they installed, are called as it calls them: 1 x 1 x H x W float tensors."""

    class Metric:
        def batch_update(self, predict, mask):
            assert predict.shape == mask.shape == (1, 1, 4, 4)
            return torch.tensor([0.25])

    package = types.SimpleNamespace(PixelF1=Metric, PixelIOU=Metric, PixelAUC=Metric)
    monkeypatch.setitem(sys.modules, "IMDLBenCo", types.ModuleType("IMDLBenCo"))
    monkeypatch.setitem(sys.modules, "IMDLBenCo.evaluation", package)
    benco = tool.find_benco()
    batch = torch.zeros(1, 1, 4, 4)
    assert benco.name == "IMDL-BenCo"
    assert (benco.f1_iou(batch, batch), benco.auc(batch, batch)) == ((0.25, 0.25), 0.25)


def test_the_arithmetic_by_hand(tool):
    # Of four pixels the first two are forged; .9, .2, .6, .1 finds the first and a wrong one: F1 2/4, IoU 1/3. Of the
    # four pairs of a forged and an authentic pixel three are in order.
    found, truth = torch.tensor([[[[0.9, 0.2], [0.6, 0.1]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert tool.BencoArithmetic().f1_iou(found, truth) == pytest.approx((0.5, 1 / 3), abs=1e-6)
    # The curve is drawn from the first pixel on, so the area before it is missing: here there is none.
    assert tool.BencoArithmetic().auc(found, truth) == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--maps", "1"], ["--size", "8"], ["--scores", "5"]])
def test_bad_arguments(tool, arguments):
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code == 2
