"""The processes of `benchmark_model.py`, one for each candidate, and how they take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WORKER = Path(__file__).with_name("_worker.py")
ALLOCATORS = {
    "default": {},
    "tuned": {
        "MALLOC_TOP_PAD_": "268435456",
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "8589934592",
    },
}
"""What glibc reads at the start of a process: its own habits, or keeping freed memory."""

WARM_UP_ROUNDS = 2
BUSY = 10.0
"""Per cent of all cores, in use by others, from which on a machine is not quiet."""


class BenchmarkError(Exception):
    """A process died, or the models are not equal."""


@dataclass(frozen=True)
class Candidate:
    """`model` ddl_d2 or transformers; `allocator` kept, default or tuned."""

    model: str
    dtype: str
    allocator: str

    def __str__(self) -> str:
        return f"{self.model} {self.dtype}" + ("" if self.allocator == "kept" else f", {self.allocator} malloc")

    @property
    def ours(self) -> bool:
        return self.model == "ddl_d2"


class Process:
    """One candidate's process, and what it is asked."""

    def __init__(self, candidate: Candidate, threads: int | None):
        self.candidate = candidate
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        environment |= ALLOCATORS.get(candidate.allocator, {})
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, do: str, **what) -> dict:
        try:
            print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            raise BenchmarkError(f"the process of {self.candidate} died at '{do}' with exit code {code} (see above)")
        return json.loads(answer)

    def build(self, job: dict, compile: bool = False) -> dict:
        candidate = self.candidate
        return self.ask("build", **job, candidate=candidate.model, dtype=candidate.dtype,
                        compile=compile and candidate.ours, keep_memory=candidate.allocator == "kept")  # fmt: skip

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def take_turns(processes: list[Process], rounds: int, patience: float) -> list[dict]:
    """Time all candidates, one round after the other; wait `patience` seconds in all for a quiet machine."""
    rows = [{"candidate": str(p.candidate), "ours": p.candidate.ours, "dtype": p.candidate.dtype,
             "allocator": p.candidate.allocator, "ms": [], "first_loss": None} for p in processes]  # fmt: skip
    for number in range(WARM_UP_ROUNDS + rounds):
        for process, row in zip(processes, rows, strict=True):
            patience = wait_for_quiet(patience)
            answer = process.ask("step")
            if number == 0:
                row["first_loss"] = answer["loss"]
            if number >= WARM_UP_ROUNDS:
                row["ms"].append(answer["ms"])
    for row in rows:
        row |= {"median": statistics.median(row["ms"]), "minimum": min(row["ms"])}
    for row in rows:
        if not row["ours"]:
            row["ratio"] = {own["candidate"]: row["median"] / own["median"] for own in rows if own["ours"]}
            row["ratio_of_minima"] = {own["candidate"]: row["minimum"] / own["minimum"] for own in rows if own["ours"]}
    return rows


def wait_for_quiet(patience: float) -> float:
    """Wait while others compute, `patience` seconds at most; -> the seconds of patience left."""
    while patience > 0:
        import psutil

        if psutil.cpu_percent(interval=0.2) < BUSY:
            return patience
        patience -= 0.2
    return 0.0
