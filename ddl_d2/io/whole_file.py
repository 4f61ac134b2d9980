"""Whether a video file is as long as its container says: a download that stopped is told before anything is decoded.

MP4 and QuickTime, AVI, Matroska and WebM, WMV and FLV say how long they are. MPEG streams do not, and are taken as they
are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

from ddl_d2.io.guard import RefusedError

_MAX_BOXES = 100_000
# Boxes of an MP4 whose sizes are believed: what stands behind them may be anything.
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"sidx", b"styp", b"uuid", b"mfra"})
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
_ASF, _ASF_PROPERTIES = (bytes.fromhex(t) for t in ("3026b2758e66cf11", "a1dcab8c47a9cf118ee400c00c205365"))
_HEAD = 4096
_RIFF_SLACK = 16  # bytes: some programs count the header, or the padding, too


def check_whole(file: BinaryIO, size: int) -> None:
    """Refuse a video that ends before its container does; where the file is read from is put back.

    Args:
        file: opened for reading.
        size: of the file, bytes.

    Raises:
        RefusedError: says how many bytes are promised, and how many there are.
    """
    position = file.tell()
    try:
        file.seek(0)
        head = file.read(_HEAD)
        if head[4:8] in _BOXES:
            promised = max(_ends_of_boxes(file, size), default=0)
        elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            promised = max(_ends_of_lists(file, size), default=0) - _RIFF_SLACK
        elif head[:4] == _EBML:
            promised = _end_of_segment(head)
        elif head.startswith(_ASF):
            promised = _number_behind(head, _ASF_PROPERTIES, skip=24, form="<Q")
        elif head.startswith(b"FLV"):
            promised = _number_behind(head, b"filesize\0", skip=0, form=">d")
        else:
            return
    finally:
        file.seek(position)
    if promised > size:
        raise RefusedError(f"is cut off: it has {size} bytes, but its container says at least {promised}")


def _ends_of_boxes(file: BinaryIO, size: int) -> Iterator[int]:
    """Where the top boxes of an MP4 end."""
    start = 0
    for _ in range(_MAX_BOXES):
        file.seek(start)
        head = file.read(16)
        if len(head) < 8 or head[4:8] not in _BOXES:
            return
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the size follows, in 64 bits
            length = int.from_bytes(head[8:16], "big") if len(head) == 16 else 0
        if length < 8:  # 0: to the end of the file
            return
        start += length
        yield start
        if start >= size:
            return


def _ends_of_lists(file: BinaryIO, size: int) -> Iterator[int]:
    """Where the lists of an AVI end: one, or several of at most 2 GiB each."""
    start = 0
    for _ in range(_MAX_BOXES):
        file.seek(start)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if len(head) < 8 or head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # unknown when it was written
            return
        start += 8 + length + length % 2
        yield start
        if start >= size:
            return


def _number_behind(head: bytes, mark: bytes, *, skip: int, form: str) -> int:
    """The number that stands `skip` bytes behind a mark; 0 if there is none."""
    start = head.find(mark) + len(mark) + skip
    if mark not in head or len(head) < start + struct.calcsize(form):
        return 0
    (value,) = struct.unpack_from(form, head, start)
    return int(value) if math.isfinite(value) else 0


def _end_of_segment(head: bytes) -> int:
    """Where the segment of a Matroska file ends; 0 if it does not say, as in a live recording."""
    body, length = _ebml_number(head, 4)
    if body + length + 4 >= len(head) or head[body + length : body + length + 4] != _SEGMENT:
        return 0
    start, size = _ebml_number(head, body + length + 4)
    return start + size


def _ebml_number(data: bytes, position: int) -> tuple[int, int]:
    """(where what follows begins, value) of a number of EBML; all bits set, which means unknown, are 0."""
    first = data[position]
    length = 9 - first.bit_length()
    if length > 8:
        return position, 0
    raw = data[position : position + length]
    value = int.from_bytes(raw, "big") & ((1 << (7 * length)) - 1)
    return position + length, 0 if value == (1 << (7 * length)) - 1 else value
