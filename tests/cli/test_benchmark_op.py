import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "benchmarks/benchmark_op.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_table_and_every_figure(tmp_path):
    target = tmp_path / "op.json"
    done = _run("--shape", "1x64x96", "--rounds", "1", "--dtype", "float32", "bfloat16", "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert "1x64x96" in done.stdout
    figures = json.loads(target.read_text())["figures"]
    assert {(f["dtype"], f["direction"], f["candidate"]) for f in figures} == {
        (dtype, direction, name)
        for dtype in ("float32", "bfloat16")
        for direction in ("forward", "backward")
        for name in ("reference", "ddl_d2")
    }
    assert all(f["faster_than_reference"] > 0 for f in figures)


def test_a_shape_that_is_none():
    done = _run("--shape", "512x512")
    assert done.returncode == 2
    assert "BATCHxHEIGHTxWIDTH" in done.stderr
