"""Mapping over many items with threads."""

from __future__ import annotations

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
