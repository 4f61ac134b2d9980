"""How long OpenMP's threads should spin before they sleep: on an idle machine, and on one whose cores are taken.

    python benchmarks/benchmark_threads.py --spin default 0 1000 10000 --rounds 15

Each setting of GOMP_SPINCOUNT has a process with --threads threads, "1 thread" has one; all take turns, first by
themselves, then beside as many busy processes as there are cores. A figure is a median of rounds as a share of the
round's best setting (idle) or of one thread (busy). What else runs on the machine counts as busy, so run it on a quiet
one; `other load` says whether it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

BUSY = "while True: pass"


def step_forever(threads: int) -> None:
    """Answer each line on stdin with the seconds of one step: a training step of a small convolutional network."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 32, 3, 2, 1)]
    for _ in range(6):
        parts += [nn.Conv2d(32, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.Conv2d(64, 32, 1)]
    network = nn.Sequential(*parts).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 128, 128).to(memory_format=torch.channels_last)
    for _ in sys.stdin:
        start = time.perf_counter()
        network(images).square().mean().backward()
        print(time.perf_counter() - start, flush=True)


class Candidate:
    def __init__(self, name: str, spin: str, threads: int):
        self.name = name
        environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        environment["OMP_NUM_THREADS"] = str(threads)
        if spin != "default":
            environment["GOMP_SPINCOUNT"] = spin
        command = [sys.executable, __file__, "--worker", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self) -> float:
        print("step", file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(candidates: list[Candidate], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, in turns; the order turns around each time, so that no one always follows the same."""
    times: dict[str, list[float]] = {one.name: [] for one in candidates}
    for number in range(rounds):
        for one in candidates[:: 1 if number % 2 else -1]:
            times[one.name].append(one.step())
    return times


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spin", nargs="+", default=["default", "0", "1000", "10000"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    args = build_parser().parse_args()
    if args.worker:
        step_forever(args.worker)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no busy process outlives this one
    candidates = [Candidate("1 thread", "default", 1), *(Candidate(f"spin {s}", s, args.threads) for s in args.spin)]
    busy: list[subprocess.Popen] = []
    result: dict = {"threads": args.threads, "other_load": os.getloadavg()[0]}
    try:
        measure(candidates, 3)
        result["idle"] = measure(candidates, args.rounds)
        busy += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
        time.sleep(1)
        result["busy"] = measure(candidates, args.rounds)
    finally:
        for process in busy:
            process.kill()
        for one in candidates:
            one.close()
    print(report(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def report(result: dict) -> str:
    rows = []
    best = min(statistics.median(times) for times in result["idle"].values())
    alone = statistics.median(result["busy"]["1 thread"])
    for name in result["idle"]:
        idle, busy = (statistics.median(result[when][name]) for when in ("idle", "busy"))
        rows.append([name, f"{1e3 * idle:.1f}", f"{idle / best:.2f}", f"{1e3 * busy:.1f}", f"{busy / alone:.2f}"])
    headers = ["setting", "idle, ms", "of the best", "busy, ms", "of 1 thread"]
    table = tabulate(rows, headers=headers, disable_numparse=True)
    return f"{result['threads']} threads, other load {result['other_load']:.1f}\n{table}"


if __name__ == "__main__":
    sys.exit(main())
