"""Rows of frames from videos: what all datasets of videos share.

A video is a file (`071.mp4`), or a folder of images extracted from it (`frames/071/013.png`, numbered by frame).
Where a set has both, the images are used: reading one is far cheaper than seeking a frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from ddl_d2.data.datasets.assemble import assemble
from ddl_d2.data.datasets.columns import FrameColumns
from ddl_d2.data.datasets.listing import Lister, has_usable_name, is_within
from ddl_d2.errors import DatasetError, ImageReadError
from ddl_d2.io.file_kinds import kind_of_head, read_head
from ddl_d2.io.file_names import is_video, says_nothing
from ddl_d2.io.rows import UNCOUNTED
from ddl_d2.io.video import count_frames, spread_frames
from ddl_d2.utils.limits import MAX_PIXELS

_COUNTING_THREADS = 8


@dataclass(frozen=True)
class VideoOptions:
    """How a set of videos becomes rows.

    Attributes:
        frames_per_video: evenly spaced frames of each video; 0 = all.
        compression: FaceForensics++'s level: "raw" (or "c0"), "c23" or "c40".
        methods: FaceForensics++'s methods of manipulation; empty = all that are there.
        frame_root: the folder that the paths of a DeepfakeBench list are relative to; "" = the list's own.
        max_pixels: the most pixels that a frame may have.
    """

    frames_per_video: int = 32
    compression: str = "c23"
    methods: tuple[str, ...] = ()
    frame_root: str = ""
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.frames_per_video < 0:
            raise DatasetError(f"DATASETS.FRAMES_PER_VIDEO is {self.frames_per_video}: it must be 0 (all) or more")


class Video(NamedTuple):
    """A video of a dataset; paths are relative to the root.

    Attributes:
        name: its file, or the folder of its frames.
        label: 0 real, 1 fake, -1 unknown.
        forgery_type: how it was forged; "" if that is not known.
        mask: the video of its masks, or a folder with a mask for each frame under the frame's stem; "" for none.
    """

    name: str
    label: int
    forgery_type: str = ""
    mask: str = ""


class FrameFile(NamedTuple):
    """One extracted frame.

    Attributes:
        name: path relative to the root.
        frame: its number in the video.
        mask: of the frame, or a video of masks; "" for none.
    """

    name: str
    frame: int
    mask: str


def subfolders_and_files(lister: Lister, folder: str) -> tuple[list[str], list[str]]:
    """List the folders and the files in `folder` (relative to the lister's root), sorted; none if it is absent.

    Nothing outside the root is listed, and links that lead out are reported.
    """
    path = os.path.join(lister.root, folder)
    if not lister.stamps.is_folder(path):
        return [], []
    lister.stamps.note(path)
    if not is_within(path, lister.root):
        lister.report.add("link_outside", folder)
        return [], []
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not has_usable_name(entry.name):
                lister.report.add("unreadable_name", f"{folder}/{entry.name}")
            elif entry.is_symlink() and not is_within(entry.path, lister.root):
                lister.report.add("link_outside", f"{folder}/{entry.name}")
            else:
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def videos_in(lister: Lister, folder: str) -> dict[str, str]:
    """List the videos of a folder: `folder`/frames/<stem>/, /videos/<stem>.mp4 or /<stem>.mp4, the first there is.

    Returns:
        stem -> path of the file or of the folder of frames, relative to the root.
    """
    found: dict[str, str] = {}
    for inner in (f"{folder}/frames", f"{folder}/videos", folder):
        folders, files = subfolders_and_files(lister, inner)
        if inner.endswith("/frames"):
            found.update((name, f"{inner}/{name}") for name in folders)
        for name in files:
            if _is_video(lister, f"{inner}/{name}"):
                found.setdefault(os.path.splitext(name)[0], f"{inner}/{name}")
            else:
                lister.report.add("other_file", f"{inner}/{name}")
    return found


def frames_of_videos(
    videos: Sequence[Video], lister: Lister, *, options: VideoOptions, fake_without_mask: str
) -> FrameColumns:
    """Make rows of evenly spaced frames of each video.

    Args:
        videos: of the dataset.
        lister: its root is what the videos' paths are relative to.
        options: how many frames, and how large they may be.
        fake_without_mask: see `assemble`; "skip" acts like "score", as the label of a video needs no mask.

    Raises:
        DatasetError: as `assemble`.
    """
    files = [video.name for video in videos if is_video(video.name) or lister.stamps.is_file(_path(lister, video.name))]
    for name in files:
        lister.stamps.note(_path(lister, name))
    with ThreadPoolExecutor(_COUNTING_THREADS) as pool:
        found = pool.map(lambda name: _count(_path(lister, name), options.max_pixels), files)
        counts = dict(zip(files, found, strict=True))
    rows = _Rows(lister, fake_without_mask)
    for video in videos:
        if video.name not in counts:
            rows.add_images(video, _frame_files(video, lister), options.frames_per_video)
            continue
        total = counts[video.name]
        if isinstance(total, str):
            lister.report.add("unreadable_video", f"{video.name}: {total}")
            lister.stamps.complete = False
            rows.add_video(video, [UNCOUNTED])
        else:
            rows.add_video(video, spread_frames(total, options.frames_per_video))
    return rows.columns()


def frames_of_lists(
    videos: Iterable[tuple[Video, list[FrameFile]]], lister: Lister, *, frames_per_video: int, fake_without_mask: str
) -> FrameColumns:
    """Make rows as `frames_of_videos` does, for videos whose extracted frames are listed somewhere."""
    rows = _Rows(lister, fake_without_mask)
    for video, frames in videos:
        rows.add_images(video, frames, frames_per_video)
    return rows.columns()


class _Rows:
    """Frames on their way into columns."""

    def __init__(self, lister: Lister, fake_without_mask: str) -> None:
        self.lister = lister
        self.policy = "score" if fake_without_mask == "skip" else fake_without_mask
        self.names: list[str] = []
        self.labels: list[int] = []
        self.masks: list[str] = []
        self.row_files: list[int] = []
        self.row_frames: list[int] = []
        self.row_videos: list[int] = []
        self.videos: list[Video] = []

    def add_video(self, video: Video, frames: Iterable[int]) -> None:
        self._add_file(video.name, video, video.mask)
        for frame in frames:
            self._add_row(int(frame))
        self.videos.append(video)

    def add_images(self, video: Video, frames: list[FrameFile], count: int) -> None:
        if not frames:
            self.lister.report.add("without_frames", video.name)
            return
        for index in spread_frames(len(frames), count):
            self._add_file(frames[index].name, video, frames[index].mask)
            self._add_row(frames[index].frame)
        self.videos.append(video)

    def columns(self) -> FrameColumns:
        files = assemble(
            self.lister.root,
            self.names,
            self.labels,
            self.masks,
            fake_without_mask=self.policy,
            report=self.lister.report,
        )
        return FrameColumns.from_files(
            files,
            file_of_row=self.row_files,
            frame_of_row=self.row_frames,
            video_of_row=self.row_videos,
            video_ids=[video.name for video in self.videos],
            forgery_types=[video.forgery_type for video in self.videos],
        )

    def _add_file(self, name: str, video: Video, mask: str) -> None:
        self.names.append(name)
        self.labels.append(video.label)
        self.masks.append(mask if video.label == 1 else "")

    def _add_row(self, frame: int) -> None:
        self.row_files.append(len(self.names) - 1)
        self.row_frames.append(frame)
        self.row_videos.append(len(self.videos))


def _path(lister: Lister, name: str) -> str:
    return os.path.join(lister.root, name)


def _is_video(lister: Lister, name: str) -> bool:
    """Whether a file is a video, by its name or, where that says nothing, by how it begins."""
    if not says_nothing(name):
        return is_video(name)
    lister.stamps.note(_path(lister, name))
    try:
        return kind_of_head(read_head(_path(lister, name))) == "video"
    except OSError as error:
        lister.stamps.complete = False
        lister.report.add("unopened_file", f"{name}: {error.strerror}")
        return False


def _count(path: str, max_pixels: int) -> int | str:
    """Frames of a video, or why they cannot be counted."""
    try:
        return count_frames(path, max_pixels=max_pixels)
    except ImageReadError as error:
        return error.reason


def _frame_files(video: Video, lister: Lister) -> list[FrameFile]:
    """The images in a video's folder of frames, by number (by name where a stem is no number)."""
    names = lister.images(os.path.join(lister.root, video.name))
    stems = [os.path.splitext(name)[0] for name in names]
    numbers = [int(stem) if stem.isdecimal() else -1 for stem in stems]
    if any(number < 0 for number in numbers):
        numbers = list(range(len(names)))
    masks: dict[str, str] = {}
    is_folder = os.path.isdir(_path(lister, video.mask))
    if video.mask and is_folder:
        found = lister.images(os.path.join(lister.root, video.mask))
        masks = {os.path.splitext(name)[0]: f"{video.mask}/{name}" for name in found}
    shared = "" if is_folder else video.mask
    frames = [
        FrameFile(f"{video.name}/{name}", number, shared or masks.get(stem, ""))
        for name, stem, number in zip(names, stems, numbers, strict=True)
    ]
    return sorted(frames, key=lambda frame: frame.frame)
