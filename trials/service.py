"""Hostile requests to the service in random order, several at once: it answers each, and grows and keeps nothing.

    python trials/service.py [--rounds 20] [--seed 0]

The cases are those of tests/serve/test_hostile_requests.py. The service is a process of its own that may not open a
connection. Exits 1 if an answer had another status, the process ended, grew by more than 300 MB after the first round,
or left a file behind.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from _trial import Tally

from tests.serve.test_hostile_requests import CASES, JPEG, post, temporary_files

AT_ONCE, MEGABYTES = 4, 300
BUSY = 503


def serve(results: Connection) -> None:
    """The service in a process of its own: its port, then its largest memory each time it is asked."""
    from ddl_d2.inference.model import load_model
    from ddl_d2.report.examination import Examiner
    from ddl_d2.serve.limits import Limits
    from ddl_d2.serve.service import Service
    from tests.serve.conftest import running

    def refuse(*_: object) -> None:
        raise AssertionError("the service asked for a connection")

    limits = Limits(max_bytes=2**20, max_pixels=10**6, upload_seconds=1.0, seconds=60, waiting=AT_ONCE)
    service = Service(lambda: {"eyes": Examiner(load_model(device="cpu"), frames=2)}, limits)
    with running(service) as port:
        socket.socket.connect = refuse
        results.send(port)
        while results.recv():
            results.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def ask(port: int, request: bytes) -> int:
    """The status of the answer; 0 for none."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        answer = b""
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # answered before the end of the request; what was read counts
    return int(answer.split(b" ", 2)[1]) if answer else 0


def one_round(tally: Tally, port: int, names: list[str], folder: Path) -> None:
    def case(name: str) -> tuple[str, int, float]:
        started = time.monotonic()
        return name, ask(port, CASES[name][1](port, folder)), time.monotonic() - started

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, status, seconds in pool.map(case, names):
            expected = CASES[name][0]
            allowed = {BUSY, *(expected if isinstance(expected, tuple) else (expected,))}
            tally.check(status in allowed and seconds < 30, name, f"status {status}, {seconds:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally, order = Tally("service"), random.Random(args.seed)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,))
    process.start()
    port, before, first = here.recv(), temporary_files(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            names = list(CASES)
            order.shuffle(names)
            one_round(tally, port, names, Path(folder))
            here.send(True)
            memory = here.recv()
            first = first or memory
    tally.check(memory - first <= MEGABYTES, "memory", f"grew from {first:.0f} to {memory:.0f} MB")
    tally.check(ask(port, post(port, JPEG)) == 200, "a last image")
    here.send(False)
    process.join(30)
    tally.check(process.exitcode == 0, "the process", f"exit code {process.exitcode}")
    tally.check(temporary_files() <= before, "files left behind", temporary_files() - before)
    print(f"memory at most {first:.0f} MB after the first round, {memory:.0f} MB after the last")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
