"""How long a dataset of DDL-I's size takes to load, cold and from its index, and how much memory: on a generated tree.

    python trials/dataset_scale.py [--scale 1.0] [--folder DIR]

At scale 1.0: train 798,831 fake + 798,831 masks + 156,100 real and valid 199,708 + 199,708 + 39,025 (empty files with
names as long as DDL-I's), a JSON list and a labels.txt of 1,000,000 lines. Bars: both splits <= 15 s cold, <= 2 s from
the index, <= 1 GB of memory; 1,000,000 lines <= 10 s. Exits 1 where one is missed. Each figure is taken in a fresh
process; "cold" means without an index, while the system may hold the folders in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from _trial import Tally

COUNTS = {"train": (798_831, 156_100), "valid": (199_708, 39_025)}
LINES = 1_000_000
BARS = {"cold": 15.0, "index": 2.0, "list": 10.0, "labels": 10.0}
MEGABYTES = 1024


def name_of(kind: str, index: int) -> str:
    return hashlib.md5(f"{kind}{index}".encode()).hexdigest() + ".png"


def make_files(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)


def make_tree(root: Path, scale: float) -> None:
    for split, (fakes, reals) in COUNTS.items():
        fake_names = [name_of(split, index) for index in range(int(fakes * scale))]
        make_files(root / "wrapper" / split / "fake", fake_names)
        make_files(root / "wrapper" / split / "masks", fake_names)
        make_files(root / "wrapper" / split / "real", [name_of(split + "real", i) for i in range(int(reals * scale))])
    past = time.time() - 60
    for folder, _, _ in os.walk(root):
        os.utime(folder, (past, past))


def make_lists(root: Path, scale: float) -> None:
    """A JSON list and a labels.txt of `LINES * scale` lines over the images of the tree, which may repeat."""
    train = root / "wrapper" / "train"
    fakes = sorted(os.listdir(train / "fake"))
    count = int(LINES * scale)
    picked = [fakes[index % len(fakes)] for index in range(count)]
    (train / "list.json").write_text(json.dumps([[f"fake/{name}", f"masks/{name}"] for name in picked]))
    (root / "test").mkdir()
    (root / "test" / "imgs").symlink_to(train / "fake")
    (root / "test" / "labels.txt").write_text("\r\n".join(f"{name},1" for name in picked))


def load(what: str, root: str, results) -> None:
    from ddl_d2.data.datasets import load_dataset

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if what in ("cold", "index"):
        rows = sum(len(load_dataset(root, split)[0]) for split in COUNTS)
    elif what == "list":
        rows = len(load_dataset(os.path.join(root, "wrapper", "train", "list.json"))[0])
    else:
        rows = len(load_dataset(root, "test", fake_without_mask="score")[0])
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    results.put((rows, seconds, grown))


def measure(root: Path) -> dict[str, tuple[int, float, float]]:
    """What is loaded -> (rows, seconds, MB)."""
    context = multiprocessing.get_context("fork")
    figures = {}
    for what in BARS:
        results = context.SimpleQueue()
        process = context.Process(target=load, args=(what, str(root), results))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"loading ({what}) failed with exit code {process.exitcode}")
        figures[what] = results.get()
    return figures


def trial(tally: Tally, scale: float, parent: str | None = None) -> None:
    """Four cases, one for each thing that is loaded; prints their figures."""
    folder = Path(tempfile.mkdtemp(prefix="ddl_d2-scale-", dir=parent))
    os.environ["DDL_D2_CACHE"] = str(folder / "cache")
    try:
        make_tree(folder / "set", scale)
        make_lists(folder / "set", scale)
        figures = measure(folder / "set")
    finally:
        shutil.rmtree(folder)
    titles = {"cold": "both splits, no index", "index": "both splits, from the index", "list": "JSON list"}
    for what, (rows, seconds, grown) in figures.items():
        title = titles.get(what, "labels.txt")
        print(f"{title}: {rows} rows, {seconds:.2f} s, +{grown:.0f} MB")
        good = seconds <= BARS[what] and grown <= MEGABYTES
        tally.check(good, title, f"the bar is {BARS[what]:.0f} s and {MEGABYTES} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", help="where the tree is made (and removed); default: the temporary folder")
    args = parser.parse_args()
    tally = Tally("dataset scale")
    trial(tally, args.scale, args.folder)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
