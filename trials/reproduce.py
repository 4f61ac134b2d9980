"""Trial: every row of docs/reproduce.md, from training to its table, on miniature datasets made on the spot.

    python trials/reproduce.py [--list] [--keep FOLDER] [WORD ...]

Each `ddl-d2` command of the page is run as it is typed, in order, but for this: /data is a folder of miniature
datasets, one CPU process stands for all GPUs and workers, what trains or is made gets tiny sizes, no weights are
downloaded, and a checkpoint of some iteration is the last one. A command passes if it succeeds and leaves what it is
for: weights, or tables that hold a number for every metric that its section names (`auc`, where it names none). WORDs
choose the commands that have one of them in their headings, place or words; a test needs the training that it is of.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _miniature import make_data
from _rows import Step, steps_of
from _training import Process
from _trial import Tally

from ddl_d2.cli.main import main as ddl_d2
from tests.conftest import ROOT, TINY

# Four images a step, two steps, an evaluation after them, images of 64 pixels; CPUs have no SyncBN.
OPTIONS = [
    *TINY,
    "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.ACCUMULATION_PARTS", "1",
    "SOLVER.MAX_ITER", "2",
    "SOLVER.WARMUP_ITERS", "0",
    "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64",
    "INPUT.CROP.SIZE", "[64, 64]",
    "TEST.EVAL_PERIOD", "2",
    "VIS_PERIOD", "0",
    "MODEL.RESNETS.NORM", "BN",
]  # fmt: skip
# Instead of what is typed.
FLAGS = {
    **dict.fromkeys(("--num-gpus", "--num-machines", "--workers"), "1"),
    **{"--count": "4", "--size": "192", "--min-face-width": "24"},
}
SECONDS = 300


def tiny(words: list[str], data: Path) -> list[str]:
    """A command's words, for miniature data and one CPU process."""
    words = [str(data) + word.removeprefix("/data") if word.startswith("/data/") else word for word in words]
    words = [re.sub(r"/model_\d{7}\.pth$", "/model_final.pth", word) for word in words]
    words = [words[0], *(FLAGS.get(before, word) for before, word in pairwise(words))]
    if not _trains(words):
        return words
    own = dict(pairwise(words)).get("MODEL.WEIGHTS", "").startswith("output/")
    loupe = any(word.startswith("ddl_i/loupe_") for word in words)
    encoder = ["MODEL.TIMM.NAME", "vit_pe_core_tiny_patch16_384"] if loupe else []
    return [*words, *OPTIONS, *encoder, *([] if own else ["MODEL.WEIGHTS", ""])]


def run(step: Step, folder: Path) -> list[str]:
    """Run a command in `folder`; returns what is wrong."""
    began = time.time()
    words = tiny(step.words, folder / "data")
    process = Process.fork(lambda: _run(words, folder), folder / "log")
    if (code := process.wait(SECONDS)) != 0:
        return [f"exit code {code}: {process.end_of_text()}"]
    if _trains(words):
        weights = [path for path in folder.rglob("model_final.safetensors") if path.stat().st_mtime >= began]
        return [] if weights else ["no weights were written"]
    if "--eval-only" not in words and words[0] != "evaluate":
        return []
    tables = {path: table for path in folder.rglob("metrics.json") if (table := _table(path, began))}
    return [
        f"{path.relative_to(folder)}: {name} is {table.get(name, 'not there')}"
        for path, table in tables.items()
        for name in step.metrics or ["auc"]
        if not isinstance(table.get(name), int | float)
    ] or ([] if tables else ["no table was written"])


def _trains(words: list[str]) -> bool:
    return words[0] == "train" and "--eval-only" not in words


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


def _forget_states(folder: Path) -> None:
    """Delete checkpoints that no command goes on with: a quarter of a gigabyte each."""
    for path in folder.rglob("model_*.pth"):
        if path.name != "model_final.pth":
            path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the commands to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave everything that was written")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/reproduce.md", help="another page of commands")
    args = parser.parse_args()
    steps = [s for s in steps_of(args.page) if not args.words or any(w in f"{s.title} {s}" for w in args.words)]
    if args.list:
        for step in steps:
            print(f"{step}\n    {step.title}; metrics: {', '.join(step.metrics) or 'none named'}")
        return 0
    tally = Tally("reproduce")
    tally.check(bool(steps), "commands to run", f"{args.page} has none")
    with contextlib.nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["DDL_D2_CACHE"] = str(folder / "cache")
        make_data(folder / "data")
        for title, of_title in groupby(steps, key=lambda step: step.title):
            print(f"== {title}", flush=True)
            for step in of_title:
                started = time.perf_counter()
                wrong = run(step, folder)
                passed = tally.check(not wrong, str(step), "; ".join(wrong))
                seconds = time.perf_counter() - started
                print(f"{'pass' if passed else 'FAIL'} {seconds:4.0f} s  {step}"[:150], flush=True)
                if not args.keep:
                    _forget_states(folder)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
