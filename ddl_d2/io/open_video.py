"""Videos that are held open, so that frames are read by number without starting anew each time.

PyAV is imported when the first video is opened. Everything here may raise whatever a decoder raises: callers stand
inside `guard`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ddl_d2.io.guard import RefusedError, check_pixels, regular_file
from ddl_d2.io.orientation import turn_of_frame, turned
from ddl_d2.io.whole_file import check_whole

VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,gif"
"""FFmpeg demuxers that read one file and nothing it points at (playlists and concat scripts are left out)."""

_MAX_OPEN = 4  # videos that one thread keeps open
MAX_INDEXES = 4096
"""Videos whose table of frames, a few KB each, is remembered."""
FileIdentity = tuple[str, int, int, int]


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """Open a video for reading once: (container, its first video stream)."""
    with regular_file(path) as file, _container(file) as container:
        yield container, _stream(container, max_pixels)


def to_rgb(frame: Any, max_pixels: int) -> np.ndarray:
    """Convert a decoded frame to uint8 H x W x 3, RGB, turned and mirrored as the file's display matrix says."""
    check_pixels(frame.width, frame.height, max_pixels)
    # One thread: freed in a forked process, a converter with threads of its own would wait for them for ever.
    return np.ascontiguousarray(turned(frame.to_ndarray(format="rgb24", threads=1), turn_of_frame(frame)))


def _container(file: Any) -> Any:
    import av

    check_whole(file, os.fstat(file.fileno()).st_size)
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"}
    return av.open(file, mode="r", options=options, metadata_errors="replace")


def _stream(container: Any, max_pixels: int) -> Any:
    if not container.streams.video:
        raise RefusedError("holds no video stream")
    stream = container.streams.video[0]
    check_pixels(stream.codec_context.width, stream.codec_context.height, max_pixels)
    return stream


def count_listed(container: Any, stream: Any) -> int:
    """Count the shown frames of a video without decoding; 0 where only decoding tells.

    An MP4 lists its frames at one place. In an AVI the headers of all packets are read.
    """
    entries = stream.index_entries
    if stream.frames and stream.frames == len(entries) and "mp4" in container.format.name:
        return sum(entry.size > 0 and not entry.is_discard for entry in entries)
    return len(_frame_index(container, stream).times) if container.format.name == "avi" else 0


class FrameIndex(NamedTuple):
    """When the frames of a video are shown; both arrays are empty if the file's packets do not tell.

    Attributes:
        times: presentation times of all frames, int64, rising, in the stream's time base.
        keys: those of the keyframes.
    """

    times: np.ndarray
    keys: np.ndarray


class OpenVideo:
    """A video held open for reading frames by number.

    Args:
        path: of the file.
        max_pixels: the most pixels a frame may have.
        index: of this file if it is known already; None reads it from the packets' headers.
    """

    def __init__(self, path: str | os.PathLike[str], max_pixels: int, index: FrameIndex | None = None) -> None:
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
        """Read (seconds, RGB) of a frame.

        Raises:
            RefusedError: a number that does not exist; besides, whatever a decoder raises.
        """
        times = self.index.times
        if number < 0 or (len(times) and number >= len(times)):
            raise RefusedError(f"has {len(times)} frames, but frame {number} was asked for")
        frame = self._sought(number) if len(times) else None
        if frame is None:  # no usable times, or the decoder disagrees with them
            frame = self._counted(number)
        seconds = frame.time if frame.time is not None else number / float(self._stream.average_rate or 25)
        return float(seconds), to_rgb(frame, self.max_pixels)

    def close(self) -> None:
        """Close the file."""
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


def _frame_index(container: Any, stream: Any) -> FrameIndex:
    """The table of frames, from the packets' headers; nothing is decoded."""
    none = FrameIndex(np.empty(0, np.int64), np.empty(0, np.int64))
    times, keys = [], []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None:
            return none
        # One that an edit list cuts away is decoded for the sake of those behind it, but not shown.
        if not packet.is_discard:
            times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
    unique = np.unique(np.array(times, dtype=np.int64))
    if len(unique) != len(times) or not keys:
        return none
    # What is shown before the first keyframe, as in a recording of a broadcast, cannot be decoded.
    return FrameIndex(unique[unique >= keys[0]], np.unique(np.array(keys, dtype=np.int64)))


class _Cache(threading.local):
    """The videos a thread keeps open. A forked process starts with none: it would share the parent's file positions."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.videos: OrderedDict[Any, OpenVideo] = OrderedDict()


_cache = _Cache()
_inherited: list[OrderedDict[Any, OpenVideo]] = []
_indexes: dict[FileIdentity, FrameIndex] = {}


@contextlib.contextmanager
def borrowed(path: str | os.PathLike[str], max_pixels: int) -> Iterator[OpenVideo]:
    """Give the open video of a file, from the cache if the file has not changed; one that fails is forgotten."""
    if _cache.process != os.getpid():
        # Kept, not closed: closing waits for a decoder's threads, which a fork does not copy.
        _inherited.append(_cache.videos)
        _cache.process, _cache.videos = os.getpid(), OrderedDict()
    identity = file_identity(path)
    video = _cache.videos.pop((identity, max_pixels), None) or OpenVideo(path, max_pixels, _indexes.get(identity))
    try:
        yield video
    except BaseException:
        video.close()
        raise
    if len(_indexes) >= MAX_INDEXES:
        _indexes.clear()
    _indexes[identity] = video.index
    _cache.videos[(identity, max_pixels)] = video
    while len(_cache.videos) > _MAX_OPEN:
        _cache.videos.popitem(last=False)[1].close()


def file_identity(path: str | os.PathLike[str]) -> FileIdentity:
    """Tell a file from another that takes its place: path, time of change (ns), bytes and number on the disk.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    return os.path.abspath(path), status.st_mtime_ns, status.st_size, status.st_ino


def close_videos() -> None:
    """Close the videos that this thread keeps open."""
    while _cache.videos:
        _cache.videos.popitem()[1].close()
