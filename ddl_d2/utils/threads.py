"""Mapping over many items with threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1) -> Iterator[Result]:
    """`map(function, items)`, computed by as many threads; neither queues a million tasks nor outlives an error."""
    if workers <= 1:
        yield from map(function, items)
        return
    iterator = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(iterator, 64 * workers)):
            yield from pool.map(function, chunk)
