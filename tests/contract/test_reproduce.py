"""docs/reproduce.md is a list of rows, and trials/reproduce.py says which of them does not work."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from ddl_d2.config.load import list_configs
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "trials"))
from _rows import rows_of
from reproduce import tiny

PAGE = ROOT / "docs/reproduce.md"

PASSING = """# Rows
## One that has no metric
```sh
ddl-d2 check-dataset /data/ddl --split valid
ddl-d2 configs
```
```sh
pip install nothing
```
"""
FAILING = """
## One whose table is not there
Its figure is `auc`.
```sh
ddl-d2 configs
```
## One that stops
```sh
ddl-d2 configs
ddl-d2 evaluate --predictions none --dataset-root /data/ddl
```
"""


def trained() -> set[str]:
    return {
        word
        for row in rows_of(PAGE)
        for command in row.commands
        for flag, word in pairwise(command)
        if flag == "--config-file"
    }


def test_each_of_s3s_configs_is_a_row():
    assert {name for name in list_configs() if name.startswith("ff/")} <= trained()


@pytest.mark.parametrize("table", ["Table 1", "Table 2", "Table 3", "Table 4"])
def test_s3s_tables_are_tested_by_videos(table):
    rows = [row for row in rows_of(PAGE) if row.title.startswith("S3") and table in row.title]
    assert rows
    for row in rows:
        assert any("--eval-only" in command for command in row.commands)
        assert any(name.startswith("video_auc") for name in row.metrics)


def test_rows_are_read(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PASSING + FAILING)
    rows = rows_of(page)
    assert [row.title for row in rows] == ["One that has no metric", "One whose table is not there", "One that stops"]
    assert [len(row.commands) for row in rows] == [2, 1, 2]
    assert [row.metrics for row in rows] == [[], ["auc"], []]


def test_what_is_changed_of_a_command(tmp_path):
    train = ["ddl-d2", "train", "--config-file", "ff/a", "--num-gpus", "8", "DATASETS.FF_ROOT", "/data/FF"]
    words = tiny(train, tmp_path)
    assert words[:7] == ["train", "--config-file", "ff/a", "--num-gpus", "1", "DATASETS.FF_ROOT", f"{tmp_path}/FF"]
    assert words[-2:] == ["MODEL.WEIGHTS", ""]
    assert words[words.index("SOLVER.MAX_ITER") + 1] == "2"
    second = tiny([*train, "MODEL.WEIGHTS", "output/ff/a/model_final.safetensors"], tmp_path)
    assert second.count("MODEL.WEIGHTS") == 1
    tested = tiny(["ddl-d2", "train", "--eval-only", "MODEL.WEIGHTS", "output/a.safetensors"], tmp_path)
    assert "SOLVER.MAX_ITER" not in tested
    assert tiny(["ddl-d2", "fuse", "average", "a", "b"], tmp_path) == ["fuse", "average", "a", "b"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the trials look into /proc")
def test_a_row_that_does_not_work_fails_the_trial(tmp_path, needs_dlib):
    page = tmp_path / "page.md"
    page.write_text(PASSING + FAILING)
    command = [sys.executable, "trials/reproduce.py", "--page", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    assert "reproduce: 2 passed, 2 failed" in done.stdout  # that there are rows, and the first of them
    assert "One whose table is not there: no table was written" in done.stderr
    assert "command 2 ended with 2: ddl-d2 evaluate" in done.stderr
    assert sum(line.startswith("FAIL ") for line in done.stdout.splitlines()) == 2
