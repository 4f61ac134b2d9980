"""Trial: every row of docs/reproduce.md trains, is tested and gives its table, on miniature datasets made on the spot.

    python trials/reproduce.py [--list] [--keep FOLDER] [WORD ...]

A row is a block of `ddl-d2` commands. Each command is run as it is typed, but for three things: /data is a folder of
miniature datasets, one CPU process stands for all GPUs, and what trains gets tiny sizes and no downloaded weights (its
own weights, once trained, are those that are tested). A row passes if its commands succeed and every metric that its
section names comes out as a number. WORDs choose rows whose titles or places hold one of them; a row that tests the
weights of another needs that one, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _miniature import make_data
from _rows import Row, rows_of
from _training import Process
from _trial import Tally

from ddl_d2.cli.main import main as ddl_d2
from tests.conftest import ROOT, TINY

# Four images a step, two steps, an evaluation after them, images of 64 pixels.
OPTIONS = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.MAX_ITER", "2",
    "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64",
    "INPUT.CROP.SIZE", "[64, 64]",
    "TEST.EVAL_PERIOD", "2",
    "VIS_PERIOD", "0",
]  # fmt: skip
SECONDS = 300


def tiny(words: Sequence[str], data: Path) -> list[str]:
    """A command's words after `ddl-d2`, for miniature data and one CPU process."""
    words = [str(data) + word.removeprefix("/data") if word.startswith("/data/") else word for word in words[1:]]
    if words[0] != "train":
        return words
    for flag in ("--num-gpus", "--num-machines"):
        if flag in words:
            words[words.index(flag) + 1] = "1"
    if "--eval-only" in words:
        return [*words, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"]
    own = dict(pairwise(words)).get("MODEL.WEIGHTS", "").startswith("output/")
    return [*words, *OPTIONS, *([] if own else ["MODEL.WEIGHTS", ""])]


def run_row(row: Row, folder: Path) -> list[str]:
    """Run a row's commands in `folder`; returns what is wrong."""
    began = time.time()
    for number, command in enumerate(row.commands):
        words = tiny(command, folder / "data")
        process = Process.fork(lambda words=words: _run(words, folder), folder / "log")
        if (code := process.wait(SECONDS)) != 0:
            return [f"command {number + 1} ended with {code}: {' '.join(command)[:200]}\n{process.end_of_text()}"]
    tables = {path: table for path in folder.rglob("metrics.json") if (table := _table(path, began))}
    if row.metrics and not tables:
        return ["no table was written"]
    return [
        f"{path.relative_to(folder)}: {name} is {table.get(name, 'not there')}"
        for path, table in tables.items()
        for name in row.metrics
        if not isinstance(table.get(name), int | float)
    ]


def _run(words: list[str], folder: Path) -> None:
    os.chdir(folder)
    sys.exit(ddl_d2(words))


def _table(path: Path, began: float) -> dict[str, Any]:
    """The metrics of an evaluation that were written since `began`; none of a training's log, a line for each step."""
    if path.stat().st_mtime < began:
        return {}
    with contextlib.suppress(json.JSONDecodeError):
        table = json.loads(path.read_text())
        return table if "num_images" in table else {}
    return {}


def _forget_states(folder: Path, page: str) -> None:
    """Delete what training would resume from: half a gigabyte a row."""
    for path in folder.rglob("*.pth"):
        if path.name not in page:
            path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the rows to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print the rows and run nothing")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave everything that was written")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/reproduce.md", help="another page of rows")
    args = parser.parse_args()
    rows = [
        row
        for row in rows_of(args.page)
        if not args.words or any(word in f"{row.title} {row.place}" for word in args.words)
    ]
    if args.list:
        for row in rows:
            print(f"{row.place}: {row.title}: {len(row.commands)} commands, {', '.join(row.metrics) or 'no metric'}")
        return 0
    tally = Tally("reproduce")
    tally.check(bool(rows), "rows to run", f"{args.page} has none")
    with contextlib.nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["DDL_D2_CACHE"] = str(folder / "cache")
        make_data(folder / "data")
        for row in rows:
            started = time.perf_counter()
            wrong = run_row(row, folder)
            passed = tally.check(not wrong, f"{row.place}: {row.title}", "; ".join(wrong))
            seconds = time.perf_counter() - started
            print(f"{'pass' if passed else 'FAIL'} {seconds:5.0f} s  {row.place}  {row.title}", flush=True)
            if not args.keep:
                _forget_states(folder, args.page.read_text(encoding="utf-8"))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
