"""`ddl-d2 robustness`: files in the folder, going on, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from detectron2.modeling import build_model

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli import robustness
from tests.conftest import ROOT, TINY


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
    cfg = ddl_d2.load_config(ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml", [*TINY, *small])
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_tensors(str(path), build_model(cfg).state_dict(), config=cfg.dump())
    return path


def test_a_run(weights, tiny_set, tmp_path, capsys):
    words = ["--weights", str(weights), "--device", "cpu", "--dataset-root", str(tiny_set), "--split", "valid"]
    words += ["--output", str(tmp_path / "out"), "--corruptions", "jpeg", "crop", "--levels", "1", "5"]
    assert robustness.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("mean AUC under corruption")
    names = {"results.jsonl", "robustness.json", "robustness.csv", "robustness.md", "robustness.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    content = json.loads((tmp_path / "out/robustness.json").read_text())
    assert list(content["conditions"]) == ["none/0", "jpeg/1", "jpeg/5", "crop/1", "crop/5"]
    assert content["num_images"] == 6

    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    assert robustness.main(words) == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        robustness.main([*words, "--seed", "1"])
    assert stopped.value.code == 2
    assert "replace them with --overwrite" in capsys.readouterr().err


def test_a_part_of_the_dataset(weights, tiny_set, tmp_path):
    words = ["--weights", str(weights), "--device", "cpu", "--dataset-root", str(tiny_set), "--split", "valid"]
    words += ["--output", str(tmp_path), "--corruptions", "gray", "--levels", "5", "--max-images", "4"]
    assert robustness.main(words) == 0
    assert json.loads((tmp_path / "robustness.json").read_text())["num_images"] == 4


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the trial looks into /proc")
def test_killed_runs_in_short():
    """Whole: `python trials/robustness.py`."""
    command = [sys.executable, "trials/robustness.py", "--short"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert " passed, 0 failed" in done.stdout
