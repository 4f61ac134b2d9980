"""Hostile pictures against `ddl_d2.data.image_io`: 33 classes x 10 files, and 10,000 mutants of 12 seeds.

    python tests/trials/hostile_images.py [--mutants 10000] [--seed 0]

Files are read in a child process, whose death would be seen. Prints the counts; exits 1 if the process died, another
exception than ImageReadError came out, a reading took more than 2 s (of processor time), memory grew by more than 1 GB,
or an accepted picture is not uint8 H x W x 3.
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
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data"))
from hostile_files import ACCEPTED, CLASSES, EITHER, REFUSED, mutant

from ddl_d2.data.image_io import ImageReadError, read_image, read_image_size, read_mask

SECONDS, MEGABYTES = 2.0, 1024


def attempt(path: Path) -> tuple[str, float]:
    """("accepted" | "refused" | what went wrong, seconds of the slowest), reading as picture, size and mask."""
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


def run_classes(folder: Path, files: int, seed: int) -> tuple[Counter, list[str], float]:
    counts, faults, slowest = Counter(), [], 0.0
    for number, (name, (make, expected)) in enumerate(CLASSES.items()):
        for index in range(files):
            path = folder / f"{number}-{index}.img"
            make(np.random.default_rng([seed, number, index]), path)
            outcome, seconds = attempt(path)
            counts[outcome if outcome in (ACCEPTED, REFUSED) else "fault"] += 1
            slowest = max(slowest, seconds)
            if outcome not in ((ACCEPTED, REFUSED) if expected == EITHER else (expected,)):
                faults.append(f"{name} {index}: {outcome}, expected {expected}")
            if seconds > SECONDS:
                faults.append(f"{name} {index}: {seconds:.1f} s")
    return counts, faults, slowest


def run_mutants(folder: Path, mutants: int, seed: int) -> tuple[Counter, list[str], float]:
    counts, faults, slowest = Counter(), [], 0.0
    path = folder / "mutant.img"
    for index in range(mutants):
        path.write_bytes(mutant(np.random.default_rng([seed, 999, index])))
        outcome, seconds = attempt(path)
        counts[outcome if outcome in (ACCEPTED, REFUSED) else "fault"] += 1
        slowest = max(slowest, seconds)
        if outcome not in (ACCEPTED, REFUSED):
            faults.append(f"mutant {index}: {outcome}")
        if seconds > SECONDS:
            faults.append(f"mutant {index}: {seconds:.1f} s")
    return counts, faults, slowest


def child(files: int, mutants: int, seed: int, results) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        classes = run_classes(folder, files, seed)
        others = run_mutants(folder, mutants, seed)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    results.put((classes, others, grown))


def trial(files: int, mutants: int, seed: int = 0) -> tuple[str, list[str]]:
    """(a line of counts, faults) of one run in a child process."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=child, args=(files, mutants, seed, results))
    process.start()
    process.join()
    if process.exitcode != 0 or results.empty():
        return "", [f"the reading process died with exit code {process.exitcode}"]
    classes, others, grown = results.get()
    faults = [*classes[1], *others[1]]
    if grown > MEGABYTES:
        faults.append(f"memory grew by {grown:.0f} MB")
    line = (
        f"{len(CLASSES)} classes x {files} files: {classes[0][ACCEPTED]} accepted, {classes[0][REFUSED]} refused; "
        f"{mutants} mutants: {others[0][ACCEPTED]} accepted, {others[0][REFUSED]} refused; 0 deaths; "
        f"{len(faults)} faults; slowest {max(classes[2], others[2]):.2f} s; memory +{grown:.0f} MB"
    )
    return line, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10, help="files of each class")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    line, faults = trial(args.files, args.mutants, args.seed)
    print("\n".join([*faults, line]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
