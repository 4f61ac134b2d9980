"""A short run of trials/hostile_images.py; DDL_D2_MUTANTS=10000 makes it the whole."""

import os
import sys

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "trials"))
import hostile_images
from _trial import Tally

from tests.io.hostile_files import CLASSES, SEEDS


def test_hostile_files_cause_one_typed_error_and_nothing_else():
    assert len(CLASSES) == 33
    assert len(SEEDS) == 12
    tally = Tally("hostile images")
    mutants = int(os.environ.get("DDL_D2_MUTANTS", 1500))
    hostile_images.trial(tally, files=2, mutants=mutants, seed=1)
    assert (tally.passed, tally.failures) == (2 * 33 + mutants + 2, [])


def test_a_reader_that_dies_is_one_failure(monkeypatch):
    monkeypatch.setattr(hostile_images, "run_mutants", lambda *_: os._exit(7))
    tally = Tally("hostile images")
    hostile_images.trial(tally, files=0, mutants=1)
    assert (tally.passed, tally.failures) == (0, ["the reading process: died with exit code 7"])
