"""Frames of videos: one after the other, or a single one by its number.

A frame's number counts the frames as a player shows them, from 0. PyAV is imported when the first video is opened.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ddl_d2.io.guard import RefusedError, check_pixels, guard, regular_file
from ddl_d2.utils.limits import MAX_PIXELS

# FFmpeg demuxers that read one file and nothing it points at (playlists and concat scripts are left out).
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,gif"

_MAX_OPEN = 4  # videos that one thread keeps open
_MAX_INDICES = 4096  # videos whose table of frames is remembered, a few KB each


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
    with guard(path), _opened(path, max_pixels) as (container, stream):
        index = -1
        for index, frame in enumerate(container.decode(stream)):
            seconds = frame.time if frame.time is not None else index / float(stream.average_rate or 25)
            yield index, float(seconds), _to_rgb(frame, max_pixels)
        if index < 0:
            raise RefusedError("no frame could be decoded")


def iter_chosen_frames(
    path: str | os.PathLike[str], indices: list[int], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, float, np.ndarray]]:
    """`iter_video_frames` for the frames with these numbers (rising) only, found by seeking."""
    for index in indices:
        with guard(path), _borrowed(path, max_pixels) as video:
            seconds, frame = video.read(index)
        yield index, seconds, frame


def read_frame(path: str | os.PathLike[str], index: int, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """One frame of a video, the same that `iter_video_frames` gives under this number.

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
    with guard(path), _borrowed(path, max_pixels) as video:
        return video.read(index)[1]


def count_frames(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> int:
    """How many frames a video has: what its header says, or counted by decoding if that is missing or not true.

    The header is believed if the file's last frame comes where that number puts it; only the packets behind the last
    keyframe are read for that.

    Raises:
        ImageReadError: not a readable video.
    """
    with guard(path), _opened(path, max_pixels) as (container, stream):
        claimed = int(stream.frames or 0)
        if claimed > 0 and _last_frame_fits(container, stream, claimed):
            return claimed
    with guard(path), _opened(path, max_pixels) as (container, stream):
        count = 0
        for frame in container.decode(stream):
            check_pixels(frame.width, frame.height, max_pixels)
            count += 1
        if not count:
            raise RefusedError("no frame could be decoded")
        return count


def spread_frames(total: int, count: int) -> np.ndarray:
    """Numbers of `count` of `total` frames, int64, evenly spaced: the middles of `count` equal parts.

    All frames if there are no more than `count`, or if `count` is 0.
    """
    if count <= 0 or total <= count:
        return np.arange(total, dtype=np.int64)
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """(container, its first video stream)."""
    with regular_file(path) as file, _container(file) as container:
        yield container, _stream(container, max_pixels)


def _container(file: Any) -> Any:
    import av

    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"}
    return av.open(file, mode="r", options=options, metadata_errors="replace")


def _stream(container: Any, max_pixels: int) -> Any:
    if not container.streams.video:
        raise RefusedError("holds no video stream")
    stream = container.streams.video[0]
    check_pixels(stream.codec_context.width, stream.codec_context.height, max_pixels)
    return stream


def _to_rgb(frame: Any, max_pixels: int) -> np.ndarray:
    check_pixels(frame.width, frame.height, max_pixels)
    rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4))


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


class _Index(NamedTuple):
    """Presentation times of all frames (int64, rising, in the stream's time base), and of the keyframes among them;
    empty if the file's packets do not tell them.
    """

    times: np.ndarray
    keys: np.ndarray


class _OpenVideo:
    """A video held open for reading frames by number."""

    def __init__(self, path: str | os.PathLike[str], max_pixels: int, index: _Index | None) -> None:
        self.path = path
        self.max_pixels = max_pixels
        self._stack = contextlib.ExitStack()
        self._frames: Iterator[Any] | None = None
        self._position = -1  # number of the last frame that was decoded
        try:
            self._start()
            self.index = _frame_index(self._container, self._stream) if index is None else index
        except BaseException:
            self.close()
            raise

    def read(self, number: int) -> tuple[float, np.ndarray]:
        """(seconds, RGB) of a frame. Whatever a decoder raises, and RefusedError for a number that does not exist."""
        times = self.index.times
        if number < 0 or (len(times) and number >= len(times)):
            raise RefusedError(f"has {len(times)} frames, but frame {number} was asked for")
        frame = self._sought(number) if len(times) else None
        if frame is None:  # no usable times, or the decoder disagrees with them
            frame = self._counted(number)
        seconds = frame.time if frame.time is not None else number / float(self._stream.average_rate or 25)
        return float(seconds), _to_rgb(frame, self.max_pixels)

    def close(self) -> None:
        self._frames = None
        self._stack.close()

    def _start(self) -> None:
        file = self._stack.enter_context(regular_file(self.path))
        self._container = self._stack.enter_context(_container(file))
        self._stream = _stream(self._container, self.max_pixels)
        # No threads of its own: loaders have a process per core, and a forked copy must not wait for a thread.
        self._stream.codec_context.thread_count = 1

    def _sought(self, number: int) -> Any:
        """The frame by its time; None if the decoder does not give it."""
        times, keys = self.index
        wanted = int(times[number])
        key = int(np.searchsorted(keys, wanted, side="right")) - 1
        # Going on is cheaper than a new start, unless a keyframe lies between.
        ahead = self._frames is not None and 0 <= self._position < number
        if ahead and (key < 0 or keys[key] <= times[self._position + 1]):
            frame = self._decode_until(wanted)
            if frame is not None:
                return frame
        # Containers seek by decoding time, which may lead to a keyframe too late: then the one before.
        for start in (key, key - 1):
            if start >= 0:
                self._container.seek(int(keys[start]), stream=self._stream, backward=True)
                self._frames = self._container.decode(self._stream)
                frame = self._decode_until(wanted)
                if frame is not None:
                    return frame
        return None

    def _decode_until(self, wanted: int) -> Any:
        for frame in self._frames or ():
            if frame.pts is None or frame.pts > wanted:
                break
            if frame.pts == wanted:
                self._position = int(np.searchsorted(self.index.times, wanted))
                return frame
        self._frames, self._position = None, -1
        return None

    def _counted(self, number: int) -> Any:
        """The frame by counting from the start."""
        self.close()
        self._stack = contextlib.ExitStack()
        self._start()
        count = 0
        for frame in self._container.decode(self._stream):
            if count == number:
                self._position = -1
                return frame
            count += 1
        raise RefusedError(f"has {count} frames, but frame {number} was asked for")


def _frame_index(container: Any, stream: Any) -> _Index:
    """The table of frames, from the packets' headers; nothing is decoded."""
    none = _Index(np.empty(0, np.int64), np.empty(0, np.int64))
    times, keys = [], []
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None:
            return none
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
    unique = np.unique(np.array(times, dtype=np.int64))
    return _Index(unique, np.unique(np.array(keys, dtype=np.int64))) if len(unique) == len(times) and keys else none


class _Cache(threading.local):
    """The videos a thread keeps open. A forked process starts with none: it would share the parent's file positions."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.videos: OrderedDict[Any, _OpenVideo] = OrderedDict()


_cache = _Cache()
_inherited: list[OrderedDict[Any, _OpenVideo]] = []
_indices: dict[Any, _Index] = {}


@contextlib.contextmanager
def _borrowed(path: str | os.PathLike[str], max_pixels: int) -> Iterator[_OpenVideo]:
    """The open video, from the cache if the file has not changed; one that fails is closed and forgotten."""
    if _cache.process != os.getpid():
        # Kept, not closed: closing waits for a decoder's threads, which a fork does not copy.
        _inherited.append(_cache.videos)
        _cache.process, _cache.videos = os.getpid(), OrderedDict()
    status = os.stat(path)
    identity = (os.fspath(path), status.st_mtime_ns, status.st_size)
    video = _cache.videos.pop((identity, max_pixels), None) or _OpenVideo(path, max_pixels, _indices.get(identity))
    try:
        yield video
    except BaseException:
        video.close()
        raise
    if len(_indices) >= _MAX_INDICES:
        _indices.clear()
    _indices[identity] = video.index
    _cache.videos[(identity, max_pixels)] = video
    while len(_cache.videos) > _MAX_OPEN:
        _cache.videos.popitem(last=False)[1].close()


def close_videos() -> None:
    """Close the videos that this thread keeps open."""
    while _cache.videos:
        _cache.videos.popitem()[1].close()
