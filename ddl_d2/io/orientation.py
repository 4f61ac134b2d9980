"""How a stored image is turned and mirrored to be seen upright: by EXIF orientation or by a video's display matrix.

All eight ways of laying a rectangle on itself are honored, also those with a mirror (front cameras).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np


class Turn(NamedTuple):
    """One of the eight ways: rows and columns are swapped first, then flipped.

    Attributes:
        swapped: whether rows become columns.
        flip_rows: whether the rows, as they are then, run backwards.
        flip_columns: likewise.
    """

    swapped: bool
    flip_rows: bool
    flip_columns: bool


UPRIGHT = Turn(False, False, False)
EXIF_TURNS = {
    1: UPRIGHT,
    2: Turn(False, False, True),
    3: Turn(False, True, True),
    4: Turn(False, True, False),
    5: Turn(True, False, False),
    6: Turn(True, False, True),
    7: Turn(True, True, True),
    8: Turn(True, True, False),
}
"""EXIF orientation -> what it asks for."""


def turned(array: np.ndarray, turn: Turn) -> np.ndarray:
    """View an array H×W (×C) as `turn` wants it seen."""
    if turn.swapped:
        array = array.swapaxes(0, 1)
    return array[:: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]


def turn_of_frame(frame: Any) -> Turn:
    """Read the display matrix of a decoded frame (of PyAV); upright if it has none."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    return UPRIGHT if matrix is None else turn_of_matrix(bytes(matrix))


def turn_of_matrix(data: bytes) -> Turn:
    """Read a display matrix of MP4: nine 32-bit fixed point numbers, in this machine's byte order.

    A stored point (x, y) is shown at (a x + c y, b x + d y), but for a shift. Angles between quarter turns are taken
    for the nearest.
    """
    a, b, _, c, d = struct.unpack("=9i", data)[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(True, b < 0, c < 0)
    return Turn(False, d < 0, a < 0)
