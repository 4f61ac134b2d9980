"""docs/reproduce.md is a list of rows, and trials/reproduce.py says which of them does not work."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from ddl_d2.config.load import list_configs
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "trials"))
from _rows import steps_of
from reproduce import tiny

PAGE = ROOT / "docs/reproduce.md"

PASSING = """# Rows
## One that works
```sh
ddl-d2 check-dataset /data/ddl --split valid
ddl-d2 evaluate --predictions output/a --dataset-root /data/ddl --split valid
```
```sh
pip install nothing
```
"""
FAILING = """
## One whose table lacks a figure
Its figure is `video_auc`.
```sh
ddl-d2 evaluate --predictions none --dataset-root /data/ddl
STORE=output/a
ddl-d2 evaluate --predictions $STORE --dataset-root /data/ddl --split valid
```
"""


def test_each_of_s3s_configs_is_trained_and_tested():
    steps = steps_of(PAGE)
    trained = {word for step in steps for flag, word in pairwise(step.words) if flag == "--config-file"}
    tested = {word for step in steps if "--eval-only" in step.words for word in step.words}
    configs = {name for name in list_configs() if name.startswith("ff/")}
    assert len(configs) == 7
    assert configs <= trained
    assert {f"output/{name}/model_final.safetensors" for name in configs} <= tested


@pytest.mark.parametrize("table", ["Table 1", "Table 2", "Table 3", "Table 4"])
def test_s3s_tables_are_tested_by_videos(table):
    steps = [step for step in steps_of(PAGE) if step.title.startswith("S3") and table in step.title]
    assert any("--eval-only" in step.words for step in steps)
    assert all(any(name.startswith("video_auc") for name in step.metrics) for step in steps)


def test_commands_are_read(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PASSING + FAILING)
    steps = steps_of(page)
    assert [step.title for step in steps] == ["One that works"] * 2 + ["One whose table lacks a figure"] * 2
    assert [step.metrics for step in steps] == [[], [], ["video_auc"], ["video_auc"]]
    assert steps[0].words == ["check-dataset", "/data/ddl", "--split", "valid"]
    assert steps[3].words == [
        "evaluate",
        "--predictions",
        "output/a",
        "--dataset-root",
        "/data/ddl",
        "--split",
        "valid",
    ]


def test_what_is_changed_of_a_command(tmp_path):
    train = ["train", "--config-file", "ff/a", "--num-gpus", "8", "DATASETS.FF_ROOT", "/data/FF"]
    words = tiny(train, tmp_path)
    assert words[:7] == ["train", "--config-file", "ff/a", "--num-gpus", "1", "DATASETS.FF_ROOT", f"{tmp_path}/FF"]
    assert words[-2:] == ["MODEL.WEIGHTS", ""]
    assert words[words.index("SOLVER.MAX_ITER") + 1] == "2"
    assert tiny([*train, "MODEL.WEIGHTS", "output/ff/b/model_final.safetensors"], tmp_path).count("MODEL.WEIGHTS") == 1
    tested = tiny(["train", "--eval-only", "MODEL.WEIGHTS", "output/a/model_0063071.pth"], tmp_path)
    assert tested == ["train", "--eval-only", "MODEL.WEIGHTS", "output/a/model_final.pth"]
    assert tiny(["fuse", "average", "a", "b", "--weights", "1", "2"], tmp_path)[1:] == [
        "average",
        "a",
        "b",
        "--weights",
        "1",
        "2",
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the trials look into /proc")
def test_a_row_that_does_not_work_fails_the_trial(tmp_path, needs_dlib):
    page = tmp_path / "page.md"
    page.write_text(PASSING + FAILING)
    command = [sys.executable, "trials/reproduce.py", "--page", str(page), "--keep", str(tmp_path)]
    with PredictionStoreWriter(tmp_path / "output/a") as writer:
        for index in range(4):
            writer.add(f"fake/{index:06d}.jpg", 0.9)
            writer.add(f"real/{index:06d}.jpg", 0.2)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:5] in ("pass ", "FAIL ")]
    assert [line[:4] for line in lines] == ["pass", "pass", "FAIL", "FAIL"]
    assert "reproduce: 3 passed, 2 failed" in done.stdout  # that there are commands, and the first two
    assert "evaluate --predictions none --dataset-root /data/ddl: exit code 2" in done.stderr
    assert "metrics.json: video_auc is not there" in done.stderr
