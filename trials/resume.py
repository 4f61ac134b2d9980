"""Trial: 40 steps are 20 steps, a kill, and 20 more, bit for bit, on the CPU.

    python trials/resume.py [--short]

Each step writes down the names and pixels of its images, its losses, and a digest of its weights, on each rank. A run
without interruption is compared with one that is killed (SIGKILL, at some step after the checkpoint of step 20) or
stopped (SIGTERM) and resumed: each of their lines, and in the end the whole last checkpoint, optimizer and all. With 0
and 2 data workers, 1 and 2 processes; with dropped paths, sampled points, and sharpness-aware minimization.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _recording import read, recorded
from _training import Process, words
from _trial import Tally

from ddl_d2.checkpoint.resume import read_lightly
from ddl_d2.cli import train as train_command
from tests.conftest import make_tiny_set


class Runs:
    """Runs of one length over one dataset, and the straight ones that others are compared with."""

    def __init__(self, folder: Path, data: Path, tally: Tally, steps: int) -> None:
        self.folder, self.data, self.tally, self.steps = folder, data, tally, steps
        self._straight: dict[tuple, Path] = {}

    def start(self, output: Path, ranks: int, resume: bool, **options: object) -> Process:
        fixed = {
            "SOLVER__MAX_ITER": self.steps,
            "SOLVER__CHECKPOINT_PERIOD": self.steps // 2,
            "MODEL__TIMM__DROP_PATH_RATE": 0.2,
            "SEED": 7,
        }
        flags = ["--num-gpus", str(ranks), *(["--resume"] if resume else [])]
        arguments = words(self.data, output, *flags, **fixed | options)
        return Process.fork(lambda: sys.exit(train_command.main(arguments, work=recorded)), self.folder / "log")

    def straight(self, ranks: int, **options: object) -> Path:
        """The output of a run without interruption, without data workers."""
        key = (ranks, *options.items())
        if key not in self._straight:
            self._straight[key] = output = self.folder / f"straight-{len(self._straight)}"
            run = self.start(output, ranks, False, **options)
            self.tally.check(run.wait(900) == 0, f"a run without interruption {key}", run.end_of_text())
        return self._straight[key]

    def compare(self, ranks: int, workers: int, number: signal.Signals, at: int, **options: object) -> None:
        """A run that is sent `number` once step `at` is written down, then resumed, against the straight one."""
        others = "".join(f", {key} {value}" for key, value in options.items())
        case = f"{ranks} process(es), {workers} workers, {number.name} after step {at}{others}"
        output = self.folder / "interrupted" / case.replace(" ", "_").replace("/", "_")
        options_with_workers = {**options, "DATALOADER__NUM_WORKERS": workers}
        run = self.start(output, ranks, False, **options_with_workers)
        while run.poll() is None and len(read(output, 0)) < at:
            run.wait_for("never", 0.02)
        run.send(number, group=number == signal.SIGKILL)
        code = run.wait(300)
        done = [len(read(output, rank)) for rank in range(ranks)]
        wanted = 143 if number == signal.SIGTERM else -number
        self.tally.check(code == wanted and at <= done[0] < self.steps, f"{case}: stopped", run.end_of_text())
        run = self.start(output, ranks, True, **options_with_workers)
        self.tally.check(run.wait(900) == 0, f"{case}: resumed", run.end_of_text())
        straight = self.straight(ranks, **options) if options.get("SEED") != -1 else output
        for rank in range(ranks):
            steps = [line["iteration"] for line in read(output, rank)]
            # What came after the checkpoint was lost with a SIGKILL, and is done again.
            first = done[rank] if number == signal.SIGTERM else self.steps // 2
            in_order = steps == [*range(done[rank]), *range(first, self.steps)]
            wrong = different(read(straight, rank), read(output, rank))
            self.tally.check(not wrong and in_order, f"{case}: rank {rank}", f"{wrong} {steps}")
        apart = unequal(read_lightly(straight / "model_final.pth"), read_lightly(output / "model_final.pth"))
        self.tally.check(not apart, f"{case}: the last checkpoint", apart[:5])


def different(straight: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    """Where a step that was done, or done again, is not that of the straight run."""
    known = {line["iteration"]: line for line in straight}
    keys = ("images", "pixels", "losses", "weights")
    return [
        f"{key} of step {line['iteration']}"
        for line in other
        for key in keys
        if line[key] != known[line["iteration"]][key]
    ][:5]


def unequal(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths to the values of two checkpoints that are not the same, bit for bit."""
    if where.endswith("/RecentCheckpoints") or where == "/config":
        return []  # file names, which say where a run was stopped; and its OUTPUT_DIR and workers
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in unequal(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in unequal(*pair, f"{where}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return [] if same else [where]
    return [] if type(a) is type(b) and a == b else [f"{where}: {a!r} and {b!r}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="6 steps, one process")
    args = parser.parse_args()
    tally = Tally("resume")
    with tempfile.TemporaryDirectory(prefix="ddl_d2-resume-") as name:
        folder = Path(name)
        runs = Runs(folder, make_tiny_set(folder / "data"), tally, 6 if args.short else 40)
        if args.short:
            runs.compare(1, 0, signal.SIGKILL, 4)
            return tally.finish()
        for ranks in (1, 2):
            for workers in (0, 2):
                runs.compare(ranks, workers, signal.SIGKILL, 24 + 3 * workers + ranks)
        runs.compare(1, 2, signal.SIGTERM, 13)
        runs.compare(2, 0, signal.SIGTERM, 27)
        runs.compare(1, 0, signal.SIGKILL, 23, SOLVER__SAM__ENABLED=True)
        runs.compare(1, 0, signal.SIGKILL, 30, SEED=-1)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
