"""Ctrl-C, which a terminal sends to every process of a training at once: as SIGTERM, and never a traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ddl_d2.cli.common import cli_errors
from tests.conftest import ROOT
from tests.engine.test_resumed_settings import CONFIG, SMALL


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_saves_and_ends(processes, tiny_set, tmp_path):
    words = ["--config-file", CONFIG, "--num-gpus", str(processes), "--dist-url", "auto", *SMALL]
    words += ["DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path / "output")]
    words += ["SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "100000", "DATALOADER.NUM_WORKERS", "1"]
    log = tmp_path / "said"
    with open(log, "w") as said:
        run = subprocess.Popen(
            [sys.executable, "tools/train_net.py", *words],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 200
        while " iter: " not in log.read_text() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(100) == 143, log.read_text()[-3000:]
    finally:
        run.kill()
        run.wait()
    text = log.read_text()
    assert "Traceback" not in text
    (iteration,) = re.findall(r"Stopped by a signal after iteration (\d+), which is saved: --resume goes on", text)
    assert (tmp_path / "output" / f"model_{int(iteration):07d}.pth").exists()


def test_any_other_command_ends_with_one_line(capsys):
    with pytest.raises(SystemExit) as caught, cli_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_with_debugging_it_keeps_its_traceback(monkeypatch):
    monkeypatch.setenv("DDL_D2_DEBUG", "1")
    with pytest.raises(KeyboardInterrupt), cli_errors():
        raise KeyboardInterrupt
