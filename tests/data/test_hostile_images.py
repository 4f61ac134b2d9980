"""A short run of tests/trials/hostile_images.py; DDL_D2_MUTANTS=10000 makes it the whole."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "trials"))
from hostile_files import CLASSES, SEEDS
from hostile_images import trial


def test_hostile_files_cause_one_typed_error_and_nothing_else():
    assert len(CLASSES) == 33
    assert len(SEEDS) == 12
    line, faults = trial(files=2, mutants=int(os.environ.get("DDL_D2_MUTANTS", 1500)), seed=1)
    assert not faults, line
