"""benchmarks/benchmark_compare.py on a few images: every figure is there."""

from __future__ import annotations

import json

from tests.conftest import load_benchmark


def test_it_compares_and_writes_what_it_took(tmp_path):
    output = tmp_path / "figures.json"
    words = ["--images", "600", "--resamples", "100", "--json", str(output)]
    assert load_benchmark("benchmark_compare").main(words) == 0
    found = json.loads(output.read_text())
    assert (found["images"], found["resamples"]) == (600, 100)
    assert found["seconds"] > 0
    assert 0.1 < found["gigabytes"] < 4
    # 60 types, 6 areas but for the largest, 8 sources, 5 counts of faces, 4 sizes.
    assert found["groups"] == 60 + 5 + 8 + 5 + 4
