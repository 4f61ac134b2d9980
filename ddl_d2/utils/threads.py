"""Mapping over many items with threads, and how threads share cores with other programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed by several threads.

    No more than some tasks are queued at a time, and an error ends them all.

    Args:
        function: called from several threads, or from this one if there is only one.
        items: may be endless.
        workers: the number of threads.

    Raises:
        Exception: what `function` raises.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    iterator = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(iterator, 64 * workers)):
            yield from pool.map(function, chunk)


SPINS = 10_000
"""How often an OpenMP thread of a program looks for new work before it sleeps; libgomp's own is 300,000."""


def share_cores(*, may_be_one: bool) -> None:
    """Set how this program's OpenMP threads wait, before torch is imported; what the user has set stays.

    By default they spin for milliseconds between two operators. On idle cores that saves waking them; on cores that
    others use, each operator waits until the system takes a core away from a thread that only spins, and two threads
    are 25 times as slow as one (benchmarks/benchmark_threads.py). Brief spinning bounds that.

    Args:
        may_be_one: start one thread only where all cores are taken already: even well-behaved threads wait for each
            other there. The last digits of results depend on the number of threads, so this is for predicting.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    if may_be_one and "OMP_NUM_THREADS" not in os.environ and os.getloadavg()[0] >= (os.cpu_count() or 1):
        os.environ["OMP_NUM_THREADS"] = "1"
