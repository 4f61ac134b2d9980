"""A two-hundredth of trials/dataset_scale.py; DDL_D2_SCALE=1 makes it the whole."""

import os
import sys

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "trials"))
from _trial import Tally
from dataset_scale import trial


def test_a_large_set_loads_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path))
    tally = Tally("dataset scale")
    trial(tally, float(os.environ.get("DDL_D2_SCALE", "0.005")), str(tmp_path))
    assert (tally.passed, tally.failures) == (4, [])
