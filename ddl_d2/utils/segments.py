"""Parts of a clip's time: pairs (start, end), in whatever unit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Time = TypeVar("Time", int, float)


def union(*lists: Iterable[tuple[Time, Time]]) -> tuple[tuple[Time, Time], ...]:
    """Merge segments that overlap or touch, in order of time."""
    merged: list[tuple[Time, Time]] = []
    for start, end in sorted(segment for segments in lists for segment in segments):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)
