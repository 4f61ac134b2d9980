import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "benchmarks" / "benchmark_model.py"
# One thread: OpenMP's would wait for each other by spinning while other tests run.
SMALL = ["--threads", "1", "--rounds", "1", "--queries", "5"]


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import benchmark_model

    return benchmark_model


def test_ours_alone(tmp_path):
    done = run("--no-peer", "--backbone", "resnet50", "--size", "64x64", "--dtype", "bfloat16", "--profile",
               "--json", tmp_path / "out.json", *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    everything = json.loads((tmp_path / "out.json").read_text())
    assert everything["machine"]["threads"] == 1
    assert [result["mode"] for result in everything["results"]] == ["inference", "training"]
    for result in everything["results"]:
        assert [row["candidate"] for row in result["candidates"]] == ["ddl_d2 bfloat16"]
        assert all(len(row["ms"]) == 1 for row in result["candidates"])
        last = "clip and optimizer" if result["mode"] == "training" else "painting"
        assert list(result["profile"]["ddl_d2 bfloat16"])[-1] == last
        assert f"{result['mode']}, resnet50, 64x64" in done.stdout


@pytest.mark.parametrize(("backbone", "mode", "batch"), [("resnet50", "inference", 2), ("swin_tiny", "training", 1)])
def test_equals_the_peer(tmp_path, backbone, mode, batch):
    pytest.importorskip("transformers")
    done = run("--backbone", backbone, "--mode", mode, "--batch", batch, "--size", "64x96", "--allocator", "tuned",
               "--json", tmp_path / "out.json", *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    equality = result["equality"]["ddl_d2 float32"]
    assert set(equality) == {"logits", "masks", "maps"}
    assert equality["logits"]["most"] < 1e-4
    assert equality["masks"]["most"] < 1e-4
    peer = result["candidates"][1]
    assert peer["ratio"]["ddl_d2 float32"] > 0
    if mode == "training":
        assert peer["first_loss"] == pytest.approx(result["candidates"][0]["first_loss"], rel=0.05)


def test_every_tensor_has_a_place_in_the_peer(monkeypatch):
    """Also those that a run would not miss: strict names, both ways, for both backbones."""
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(TOOL.parent))
    from _mask2former_peer import build_peer
    from detectron2.modeling import build_model

    from ddl_d2.data.datasets import load_config

    opts = ["MODEL.DETECTION.ENABLED", "False", "MODEL.TIMM.PRETRAINED", "", "MODEL.RESNETS.NORM", "BN",
            "MODEL.DEVICE", "cpu"]  # fmt: skip
    for backbone in ("resnet50", "swin_tiny"):
        weights = build_model(load_config(ROOT / f"configs/ddl_i/mask2former_{backbone}.yaml", opts)).state_dict()
        build_peer(backbone, 100, weights)
        missing = next(iter(weights))
        with pytest.raises(ValueError, match="without a value"):
            build_peer(backbone, 100, {name: value for name, value in weights.items() if name != missing})
        with pytest.raises(ValueError, match="no rule"):
            build_peer(backbone, 100, weights | {"backbone.stranger": torch.zeros(1)})


def test_unequal_outputs_are_refused(tool):
    tool = sys.modules[tool.check_equality.__module__]
    theirs = torch.linspace(-1, 1, 2 * 40 * 6).view(2, 40, 2, 3)
    ours = theirs.clone()
    ours[0, 7] += 0.002  # one query of eighty, 1e-3 of the range: a borderline pixel of its attention mask
    difference = tool.differences(ours, theirs)
    assert difference["maximum"] == pytest.approx(1e-3, rel=1e-3)
    assert difference["most"] == 0
    tool.refuse_unequal("masks", difference, tool.FLOAT32_LIMITS)
    ours[1] += 0.002
    with pytest.raises(tool.BenchmarkError, match="not the same function: masks"):
        tool.refuse_unequal("masks", tool.differences(ours, theirs), tool.FLOAT32_LIMITS)
    tool.refuse_unequal("masks", tool.differences(ours, theirs), tool.BFLOAT16_LIMITS)
    ours[0, 0, 0, 0] = float("nan")
    with pytest.raises(tool.BenchmarkError):
        tool.refuse_unequal("masks", tool.differences(ours, theirs), tool.BFLOAT16_LIMITS)


def test_bad_arguments(tool, capsys):
    for words, message in (
        (["--size", "64x65"], "multiples of 32"),
        (["--size", "32x64"], "from 64"),
        (["--size", "64"], "HEIGHTxWIDTH"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--profile", "--compile"], "choose one"),
    ):
        with pytest.raises(SystemExit) as stop:
            tool.parse_arguments(words)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
