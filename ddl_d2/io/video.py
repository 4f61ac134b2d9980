"""Frames of videos: one after the other, or a single one by its number.

A frame's number counts the frames as a player shows them, from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ddl_d2.io.guard import RefusedError, check_pixels, guard
from ddl_d2.io.open_video import borrowed, opened, to_rgb
from ddl_d2.utils.limits import MAX_PIXELS


def iter_video_frames(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Decode the first video stream of a file, one frame at a time.

    Args:
        path: a video file. Playlists and other files that name further files are refused.
        max_pixels: the most pixels a frame may have.

    Yields:
        (index from 0, time in seconds, uint8 H x W x 3 RGB), turned as the file's display matrix says.

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
    """Count the frames of a video, by its header, or by decoding if the header says nothing or something untrue.

    The header is believed if the file's last frame comes where that number puts it; only the packets behind the last
    keyframe are read for that.

    Raises:
        ImageReadError: not a readable video.
    """
    with guard(path), opened(path, max_pixels) as (container, stream):
        claimed = int(stream.frames or 0)
        if claimed > 0 and _last_frame_fits(container, stream, claimed):
            return claimed
    with guard(path), opened(path, max_pixels) as (container, stream):
        count = 0
        for frame in container.decode(stream):
            check_pixels(frame.width, frame.height, max_pixels)
            count += 1
        if not count:
            raise RefusedError("no frame could be decoded")
        return count


def spread_frames(total: int, count: int) -> np.ndarray:
    """Choose `count` of `total` frames, evenly spaced: the middles of `count` equal parts.

    Returns:
        Their numbers, int64; all if there are no more than `count`, or if `count` is 0.
    """
    if count <= 0 or total <= count:
        return np.arange(total, dtype=np.int64)
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)


def _last_frame_fits(container: Any, stream: Any, claimed: int) -> bool:
    """Whether the last packet's time agrees with `claimed` frames at the average rate."""
    import av

    if not (stream.duration and stream.average_rate and stream.time_base):
        return False
    start = stream.start_time or 0
    try:
        container.seek(start + stream.duration, stream=stream, backward=True)
        times = [packet.pts for packet in container.demux(stream) if packet.pts is not None and packet.size]
    except av.FFmpegError:
        return False
    if not times:
        return False
    found = float((max(times) - start) * stream.time_base * stream.average_rate) + 1
    return abs(found - claimed) <= 1
