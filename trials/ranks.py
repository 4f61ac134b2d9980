"""Trial: when a rank or a data worker dies or hangs, all processes end soon, with an error that names the rank.

    python trials/ranks.py [--short]

Runs of two processes on the CPU, under the project's launcher and under torchrun. From outside: a rank, a data worker
or the launcher itself gets SIGKILL, or a rank SIGSTOP. From inside: an exception in one rank, or in a data worker of
it, while the other rank waits; a rank or a data worker that hangs. All processes have to be gone within 60 s (after
the timeout, which is set to 10 s here, where something hangs), with an exit code that is not 0.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _training import Process, alive, children, words
from _trial import Tally

from tests.conftest import make_tiny_set

SECONDS = 60
TIMEOUT = 10
FAULTY = str(Path(__file__).with_name("_faults.py"))
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def forked(run: Process) -> dict[int, str]:
    """The data workers of a run of the project's launcher: the children of its ranks, which look like their parents."""
    ranks = run.ranks() or [run.pid]
    return {pid: line for rank in ranks for pid, line in children(rank).items() if "resource_tracker" not in line}


class Runs:
    def __init__(self, folder: Path, data: Path, tally: Tally) -> None:
        self.folder, self.data, self.tally = folder, data, tally

    def start(self, fault: str = "none:-1:0", workers: int = 0, torchrun: bool = False, ranks: int = 2) -> Process:
        flags = [] if torchrun else ["--num-gpus", str(ranks)]
        options = {
            "SOLVER__MAX_ITER": 100_000,
            "SOLVER__CHECKPOINT_PERIOD": 100_000,
            "DATALOADER__NUM_WORKERS": workers,
            "ENGINE__HANG_TIMEOUT": TIMEOUT,
        }
        arguments = words(self.data, self.folder / "output", *flags, **options)
        launcher = TORCHRUN if torchrun else []
        run = Process.start([*launcher, FAULTY, *arguments], self.folder / "log", FAULT=fault)
        if not run.wait_for("Starting training from iteration", 600):
            run.kill_group()
            raise RuntimeError(f"the run did not start: {run.end_of_text()}")
        # Data workers are started by the first step.
        until = time.monotonic() + 30
        while len(forked(run)) < workers * ranks and run.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return run

    def ends(self, run: Process, case: str, says: str, *, hangs: bool = False, code: int | None = None) -> None:
        """All of the run's processes are gone in time; it said what matches `says`."""
        started = time.monotonic()
        everyone = [run.pid, *run.descendants()]
        got = run.wait(SECONDS + (TIMEOUT if hangs else 0))
        while alive(everyone) and time.monotonic() - started < SECONDS:
            time.sleep(0.05)
        seconds, left = time.monotonic() - started, alive(everyone)
        problems = [
            *([f"exit code {got}"] if got in (None, 0) or code not in (None, got) else []),
            *([f"{len(left)} of {len(everyone)} processes are left"] if left else []),
            *([] if re.search(says, run.text()) else [f"it did not say {says!r}"]),
        ]
        run.kill_group()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.tally.check(not problems, case, f"{problems} {run.end_of_text()}")
        print(f"  {case}: {seconds:.1f} s", flush=True)

    def killed_rank(self, number: int) -> None:
        run = self.start()
        Process(run.ranks()[number], run.log).send(signal.SIGKILL)
        self.ends(
            run, f"rank {number} is killed", rf"error: rank {number} \(process \d+\) was killed by SIGKILL", code=1
        )

    def killed_rank_of_torchrun(self) -> None:
        run = self.start(torchrun=True)
        ranks = sorted(pid for pid, line in run.descendants().items() if "_faults.py" in line)
        Process(ranks[1], run.log).send(signal.SIGKILL)
        self.ends(run, "torchrun: a rank is killed", r"rank +: 1 ")

    def killed_worker(self, ranks: int) -> None:
        run = self.start(workers=2, ranks=ranks)
        of_rank = run.ranks()[1] if ranks == 2 else run.pid
        worker = min(children(of_rank).keys() & forked(run).keys())
        Process(worker, run.log).send(signal.SIGKILL)
        named = r"rank 1 \(process \d+\) failed: .*" if ranks == 2 else ""
        says = rf"{named}DataLoader worker \(pid\(?s?\)?:? *{worker}\) (is killed by signal|exited unexpectedly)"
        self.ends(run, f"a data worker is killed, {ranks} rank(s)", says)

    def killed_launcher(self, workers: int) -> None:
        run = self.start(workers=workers)
        everyone = run.descendants()
        run.send(signal.SIGKILL)
        enough = len(everyone) >= 2 + 2 * workers
        self.tally.check(enough, "the launcher is killed: processes", everyone)
        self.ends_silently(run, list(everyone), f"the launcher is killed, {workers} workers")

    def ends_silently(self, run: Process, everyone: list[int], case: str) -> None:
        until = time.monotonic() + SECONDS
        while alive(everyone) and time.monotonic() < until:
            time.sleep(0.05)
        left = alive(everyone)
        self.tally.check(not left and run.wait(1) == -signal.SIGKILL, case, f"{left} are left")
        run.kill_group()

    def frozen_rank(self) -> None:
        run = self.start()
        Process(run.ranks()[1], run.log).send(signal.SIGSTOP)
        # The frozen one can say nothing; the other says that it waits, and the launcher that there are two.
        says = r"error: rank 0 \(process \d+\) hung \(see above\); rank 1 was ended"
        self.ends(run, "a rank is frozen", says, hangs=True)

    def fault(self, what: str, says: str, *, workers: int = 0, hangs: bool = False, torchrun: bool = False) -> None:
        run = self.start(f"{what}:1:3", workers, torchrun)
        launcher = "torchrun: " if torchrun else ""
        self.ends(run, f"{launcher}{what} on rank 1", says, hangs=hangs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="one rank killed")
    args = parser.parse_args()
    tally = Tally("ranks")
    with tempfile.TemporaryDirectory(prefix="ddl_d2-ranks-") as name:
        folder = Path(name)
        runs = Runs(folder, make_tiny_set(folder / "data"), tally)
        runs.killed_rank(1)
        if args.short:
            return tally.finish()
        runs.killed_rank(0)
        runs.killed_rank_of_torchrun()
        runs.killed_worker(ranks=2)
        runs.killed_worker(ranks=1)
        runs.killed_launcher(workers=0)
        runs.killed_launcher(workers=2)
        runs.frozen_rank()
        runs.fault("raise", r"rank 1 \(process \d+\) failed: RuntimeError: a fault made for the trial; rank 0 ")
        runs.fault("worker-raise", r"rank 1 \(process \d+\) failed: (?s:.*)a fault made for the trial", workers=2)
        runs.fault("worker-hang", r"rank 1 \(process \d+\) failed: .*DataLoader timed out", workers=2, hangs=True)
        runs.fault("hang", r"rank 1: iteration 3 hangs for \d+ s, in happen \(.*_faults.py:\d+\)", hangs=True)
        runs.fault("wait", r"rank [01]: iteration 3 hangs for \d+ s", hangs=True)
        runs.fault("raise", r"rank +: 1 ", torchrun=True)
        runs.fault("hang", r"rank 1: iteration 3 hangs", hangs=True, torchrun=True)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
