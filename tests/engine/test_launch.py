"""Starting a run: what is refused, one process, and what a crash leaves (how ranks end: test_ranks.py)."""

import subprocess
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from ddl_d2.engine.launch import launch
from ddl_d2.errors import ConfigError
from tests.conftest import ROOT

ARGS = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="--num-gpus 2: this machine has 1"):
        launch(print, ARGS)


def test_an_automatic_address_is_for_one_machine():
    with pytest.raises(ConfigError, match="for one machine"):
        launch(print, Namespace(**vars(ARGS) | {"num_machines": 2}))


def test_one_process_is_this_one():
    seen = []
    launch(seen.append, SimpleNamespace(num_gpus=0, num_machines=1))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "start",
    [
        "launch(falls_over, Namespace(num_gpus=1, num_machines=1))",
        # A rank, as `launch` starts them.
        "with Ranks(falls_over, 1, grace=1.0, folder=Path(sys.argv[1])) as ranks:\n        ranks.wait()",
    ],
    ids=["alone", "as a rank"],
)
def test_a_crash_in_compiled_code_says_where(start, tmp_path):
    script = tmp_path / "crashes.py"
    script.write_text(
        "import os, sys\n"
        "from argparse import Namespace\n"
        "from pathlib import Path\n"
        "from ddl_d2.engine.launch import Ranks, launch\n"
        "def falls_over(_):\n"
        "    os.abort()\n"
        "if __name__ == '__main__':\n"
        f"    {start}\n"
    )
    command = [sys.executable, script, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "Fatal Python error: Aborted" in done.stderr
    assert "falls_over" in done.stderr
