"""The trials of surviving a crash, in short; whole: `python trials/crash.py`, and so on."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the trials look into /proc")
@pytest.mark.parametrize("trial", ["crash", "resume", "ranks"])
def test_in_short(trial):
    command = [sys.executable, f"trials/{trial}.py", "--short"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert " passed, 0 failed" in done.stdout
