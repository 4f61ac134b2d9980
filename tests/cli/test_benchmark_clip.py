"""The benchmark of clip systems runs, and says what it says it does."""

from __future__ import annotations

import json

from tests.conftest import load_benchmark


def test_a_short_clip(tmp_path, capsys):
    tool = load_benchmark("benchmark_clip")
    out = tmp_path / "out.json"
    arguments = ["--config", "two_cores/batfd_plus_self_forged", "--seconds", "0.4", "--rounds", "1", "--threads", "1"]
    assert tool.main([*arguments, "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["results"]
    assert row["wall"] > 0
    assert row["real_time"] == row["wall"] / 0.4
    assert 0.1 < row["memory"] < 4
    assert "two_cores/batfd_plus_self_forged" in capsys.readouterr().out
