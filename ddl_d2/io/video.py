"""Frames of videos: one after the other, or a single one by its number.

A frame's number counts the frames as a player shows them, from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from ddl_d2.io.guard import RefusedError, check_pixels, guard
from ddl_d2.io.open_video import MAX_INDEXES, FileIdentity, borrowed, count_listed, file_identity, opened, to_rgb
from ddl_d2.io.orientation import Turn, turn_of_frame
from ddl_d2.utils.limits import MAX_PIXELS

_turns: dict[FileIdentity, Turn] = {}


def iter_video_frames(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Decode the first video stream of a file, one frame at a time.

    Args:
        path: a video file. Playlists and other files that name further files are refused.
        max_pixels: the most pixels a frame may have.

    Yields:
        (index from 0, time in seconds, uint8 H x W x 3 RGB), turned and mirrored as the file's display matrix says.

    Raises:
        ImageReadError: not a video, no video stream, a frame too large, or damage (after the frames before it).
    """
    with guard(path), opened(path, max_pixels) as (container, stream):
        index = -1
        for index, frame in enumerate(container.decode(stream)):
            seconds = frame.time if frame.time is not None else index / float(stream.average_rate or 25)
            yield index, float(seconds), to_rgb(frame, max_pixels)
        if index < 0:
            raise RefusedError("no frame could be decoded")


def iter_chosen_frames(
    path: str | os.PathLike[str], indices: list[int], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Decode only the frames with these numbers (rising), found by seeking; otherwise as `iter_video_frames`."""
    for index in indices:
        with guard(path), borrowed(path, max_pixels) as video:
            seconds, frame = video.read(index)
        yield index, seconds, frame


def read_frame(path: str | os.PathLike[str], index: int, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one frame of a video, the same that `iter_video_frames` gives under this number.

    The nearest keyframe before it is sought and decoding goes on from there, or from where the last call for this
    video stopped if that is nearer. Each thread keeps a few videos open.

    Args:
        path: a video file.
        index: of the frame, from 0.
        max_pixels: the most pixels a frame may have.

    Returns:
        uint8, H x W x 3, RGB, contiguous and writable.

    Raises:
        ImageReadError: not a readable video, or it has no such frame.
    """
    with guard(path), borrowed(path, max_pixels) as video:
        return video.read(index)[1]


def count_frames(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> int:
    """Count the frames that playing a video shows, which are those that `read_frame` gives.

    An MP4's table of frames and the packets' headers of an AVI are enough for that. Frames that are listed but not
    shown (dropped while recording, or cut away by an edit list) do not count. Other files are decoded.

    Raises:
        ImageReadError: not a readable video.
    """
    with guard(path), opened(path, max_pixels) as (container, stream):
        count = count_listed(container, stream)
        if count:
            return count
    with guard(path), opened(path, max_pixels) as (container, stream):
        for frame in container.decode(stream):
            check_pixels(frame.width, frame.height, max_pixels)
            count += 1
        if not count:
            raise RefusedError("no frame could be decoded")
        return count


def read_video_turn(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Turn:
    """Read how a video is turned by its display matrix when it is shown; remembered while the file does not change.

    Raises:
        ImageReadError: not a readable video.
    """
    with guard(path):
        identity = file_identity(path)
        turn = _turns.get(identity)
        if turn is None:
            with opened(path, max_pixels) as (container, stream):
                frame = next(container.decode(stream), None)
            if frame is None:
                raise RefusedError("no frame could be decoded")
            if len(_turns) >= MAX_INDEXES:
                _turns.clear()
            turn = _turns[identity] = turn_of_frame(frame)
        return turn


def spread_frames(total: int, count: int) -> np.ndarray:
    """Choose `count` of `total` frames, evenly spaced: the middles of `count` equal parts.

    Returns:
        Their numbers, int64; all if there are no more than `count`, or if `count` is 0.
    """
    if count <= 0 or total <= count:
        return np.arange(total, dtype=np.int64)
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)
