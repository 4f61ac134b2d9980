"""Rows of a result table in a few dozen bytes each: what one process sends to another."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddl_d2.evaluation.results import ImageResult

_UNKNOWN_LABEL = 2
_LABEL_BITS, _HAS_SCORE, _HAS_COUNTS, _HAS_MASK, _RESIZED = 3, 4, 8, 16, 32


class PackedResults(NamedTuple):
    """N results as columns.

    `ids`: their names, compressed; `videos` likewise those of their videos, empty if none has one. `flags` (N,) uint8:
    label (2 = unknown) and the yes-or-no fields. `sizes` (N, 2) height and width. `scores` (S,) of those that have one.
    `counts` (C, 3) TP, FP, FN of those that have them, TN being the rest of the pixels. Numbers take the smallest type
    that holds all of a column exactly.
    """

    ids: bytes
    videos: bytes
    flags: NDArray[np.uint8]
    sizes: NDArray[np.unsignedinteger]
    scores: NDArray[np.floating]
    counts: NDArray[np.unsignedinteger]


def pack_results(rows: Sequence[ImageResult]) -> PackedResults:
    """The rows as columns; `unpack_results` gives back equal ones."""
    return PackedResults(
        ids=_packed([row.image_id for row in rows]),
        videos=_packed([row.video_id for row in rows]) if any(row.video_id is not None for row in rows) else b"",
        flags=np.array([_flags(row) for row in rows], dtype=np.uint8),
        sizes=_smallest([(row.height, row.width) for row in rows], 2),
        scores=_exact([row.score for row in rows if row.score is not None]),
        counts=_smallest([row.counts[:3] for row in rows if row.counts is not None], 3),
    )


def unpack_results(packed: PackedResults) -> Iterator[ImageResult]:
    """The rows, in their order."""
    scores, counts = iter(packed.scores.tolist()), iter(packed.counts.tolist())
    ids = json.loads(zlib.decompress(packed.ids))
    videos = json.loads(zlib.decompress(packed.videos)) if packed.videos else [None] * len(ids)
    columns = zip(ids, videos, packed.flags.tolist(), packed.sizes.tolist(), strict=True)
    for image_id, video_id, flags, (height, width) in columns:
        label = flags & _LABEL_BITS
        score = next(scores) if flags & _HAS_SCORE else None
        table = None
        if flags & _HAS_COUNTS:
            table = tuple(next(counts))
            table = (*table, height * width - sum(table))
        known, resized = bool(flags & _HAS_MASK), bool(flags & _RESIZED)
        yield ImageResult(
            image_id, None if label == _UNKNOWN_LABEL else label, score, table, known, height, width, resized, video_id
        )


def _packed(names: Sequence[str | None]) -> bytes:
    return zlib.compress(json.dumps(names).encode("ascii"), 1)


def _flags(row: ImageResult) -> int:
    return (
        (_UNKNOWN_LABEL if row.is_fake is None else row.is_fake)
        | _HAS_SCORE * (row.score is not None)
        | _HAS_COUNTS * (row.counts is not None)
        | _HAS_MASK * row.has_mask
        | _RESIZED * row.resized_mask
    )


def _smallest(values: Sequence[tuple[int, ...]], width: int) -> NDArray[np.unsignedinteger]:
    table = np.array(values, dtype=np.uint64).reshape(-1, width)
    return table.astype(np.min_scalar_type(table.max())) if table.size else table


def _exact(values: Sequence[float]) -> NDArray[np.floating]:
    """float32 if that is exact, as it is for what a float32 model says, else float64."""
    wide = np.array(values, dtype=np.float64)
    single = wide.astype(np.float32)
    return single if np.array_equal(single, wide) else wide
