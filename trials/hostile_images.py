"""Hostile images against `ddl_d2.io.image`: 33 classes x 10 files, and 10,000 mutants of 12 seeds.

    python trials/hostile_images.py [--mutants 10000] [--seed 0]

Files are read in a child process, whose death would be seen. A file fails if another exception than ImageReadError came
out, a reading took more than 2 s (of processor time), or an accepted image is not uint8 H x W x 3. Two cases more are
the life of the process and its memory, which may grow by 1 GB. Exits 1 if any failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data"))
from _trial import Tally

from ddl_d2.errors import ImageReadError
from ddl_d2.io.image import read_image, read_image_size, read_mask
from tests.io.hostile_files import ACCEPTED, CLASSES, EITHER, REFUSED, mutant

SECONDS, MEGABYTES = 2.0, 1024


def attempt(path: Path) -> tuple[str, float]:
    """("accepted" | "refused" | what went wrong, seconds of the slowest), reading as image, size and mask."""
    outcome, slowest = REFUSED, 0.0
    for read in (read_image, read_image_size, read_mask):
        started = time.process_time()
        try:
            result = read(path)
        except ImageReadError:
            continue
        except BaseException as error:  # noqa: BLE001 (this is what is being looked for)
            return f"{read.__name__}: {type(error).__name__}: {error}", slowest
        finally:
            slowest = max(slowest, time.process_time() - started)
        if read is read_image:
            outcome = ACCEPTED
            if result.dtype != np.uint8 or result.ndim != 3 or result.shape[2] != 3 or not result.size:
                return f"accepted as {result.dtype} {result.shape}", slowest
            shape = result.shape[:2]
        elif outcome == ACCEPTED and tuple(result if read is read_image_size else result.shape) != shape:
            return f"{read.__name__} disagrees about the size", slowest
    return outcome, slowest


def read_one(path: Path, expected: tuple[str, ...] = (ACCEPTED, REFUSED)) -> tuple[str, str, float]:
    """(outcome, what is wrong with it or "", seconds of the slowest reading)."""
    outcome, seconds = attempt(path)
    if outcome not in expected:
        return outcome, f"{outcome}, expected {' or '.join(expected)}", seconds
    return outcome, f"{seconds:.1f} s" if seconds > SECONDS else "", seconds


Case = tuple[str, tuple[str, str, float]]
"""(file, what `read_one` gave)."""


def run_classes(folder: Path, files: int, seed: int) -> list[Case]:
    cases = []
    for number, (name, (make, expected)) in enumerate(CLASSES.items()):
        allowed = (ACCEPTED, REFUSED) if expected == EITHER else (expected,)
        for index in range(files):
            path = folder / f"{number}-{index}.img"
            make(np.random.default_rng([seed, number, index]), path)
            cases.append((f"{name} {index}", read_one(path, allowed)))
    return cases


def run_mutants(folder: Path, mutants: int, seed: int) -> list[Case]:
    cases = []
    path = folder / "mutant.img"
    for index in range(mutants):
        path.write_bytes(mutant(np.random.default_rng([seed, 999, index])))
        cases.append((f"mutant {index}", read_one(path)))
    return cases


def child(files: int, mutants: int, seed: int, results: Connection) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        classes = run_classes(folder, files, seed)
        others = run_mutants(folder, mutants, seed)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    results.send((classes, others, grown))


def trial(tally: Tally, files: int, mutants: int, seed: int = 0) -> None:
    """One run in a child process; prints what became of the files."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(files, mutants, seed, there))
    process.start()
    there.close()
    try:
        classes, others, grown = here.recv()
    except EOFError:
        process.join()
        tally.check(False, "the reading process", f"died with exit code {process.exitcode}")
        return
    process.join()
    tally.check(process.exitcode == 0, "the reading process", f"exit code {process.exitcode}")
    for case, (_, wrong, _) in classes + others:
        tally.check(not wrong, case, wrong)
    tally.check(grown <= MEGABYTES, "memory", f"+{grown:.0f} MB")
    for title, cases in ((f"{len(CLASSES)} classes x {files} files", classes), (f"{mutants} mutants", others)):
        counts = Counter(outcome for _, (outcome, _, _) in cases)
        slowest = max(seconds for _, (_, _, seconds) in cases)
        print(f"{title}: {counts[ACCEPTED]} accepted, {counts[REFUSED]} refused; slowest {slowest:.2f} s")
    print(f"memory: +{grown:.0f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10, help="files of each class")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally = Tally("hostile images")
    trial(tally, args.files, args.mutants, args.seed)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
