"""A batch that goes through the network in parts (gradient accumulation), and what its losses are divided by.

A loss that is the mean over the images of a batch is the mean of its equal parts' losses. One that is divided by a
count which varies from part to part (images whose forged pixels are known, forged regions) is so only if each part
divides by the count of the whole batch, over the number of parts. That count follows from the rows alone, and the rows
of the whole batch are known here while one of its parts is in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

Row = dict[str, Any]


class WholeBatch(NamedTuple):
    """The rows that make one update, and in how many equal parts they go through the network."""

    rows: list[Row]
    parts: int


_WHOLE: ContextVar[WholeBatch | None] = ContextVar("whole_batch", default=None)


@contextmanager
def in_parts(batch: list[Row], parts: int) -> Iterator[list[list[Row]]]:
    """Cut a batch into equal parts; inside, `whole_batch` of each of them is the batch.

    Args:
        batch: mapper's rows.
        parts: divides their number.

    Yields:
        the parts, in the order of the rows.
    """
    size = len(batch) // parts
    before = _WHOLE.set(WholeBatch(batch, parts))
    try:
        yield [batch[start : start + size] for start in range(0, len(batch), size)]
    finally:
        _WHOLE.reset(before)


def whole_batch(part: list[Row]) -> WholeBatch:
    """Return the batch that rows are a part of: outside of `in_parts`, they are all of it."""
    return _WHOLE.get() or WholeBatch(part, 1)


def count_per_part(part: list[Row], count: Callable[[Row], float]) -> float:
    """Sum `count` over the rows of the whole batch, at least 1, and divide by the number of parts.

    What a loss that sums over the images of `part` is divided by, for the mean over the parts to be that of the batch.
    """
    rows, parts = whole_batch(part)
    return max(1.0, sum(count(row) for row in rows)) / parts
