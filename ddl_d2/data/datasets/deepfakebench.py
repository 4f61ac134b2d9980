"""The JSON lists of DeepfakeBench.

    {dataset: {label name: {split: {compression: {video: {"label": ..., "frames": [...], "masks": [...]}}}}}}

The level of compression is there for FaceForensics++-like sets only. A frame's mask is the one of its stem.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ddl_d2.data.datasets.json_list import check_not_coco
from ddl_d2.data.datasets.listed_files import ListedFiles
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.splits import SPLITS
from ddl_d2.data.datasets.text_files import read_json
from ddl_d2.data.datasets.video import FrameFile, Video, VideoOptions
from ddl_d2.errors import DatasetError

_LEVELS = frozenset({"raw", "c0", "c23", "c40"})
# Label names end like this, in upper or lower case; FaceForensics++ names the method instead.
_REAL_ENDINGS = ("real",)
_FAKE_ENDINGS = ("fake", "fakea", "fakeb", "ff-df", "ff-f2f", "ff-fs", "ff-nt", "ff-fh")
_SHAPE = '{dataset: {label: {split: {[compression]: {video: {"frames": [...]}}}}}}'


def read_deepfakebench(
    path: str, lister: Lister, split: str | None, options: VideoOptions
) -> Iterator[tuple[Video, list[FrameFile]]]:
    """Read the videos of a list with their frames (paths relative to the lister's root, ordered by number).

    Args:
        path: the list.
        lister: its root is what the list's paths are relative to.
        split: "train", "valid" or "test"; None = all.
        options: `compression` chooses the level where there is one.

    Raises:
        DatasetError: not such a list, an unknown label name, or no such split or level; says what was expected.
    """
    lister.stamps.note(path)
    files = ListedFiles(lister)
    seen: set[str] = set()
    matched = False
    for label_name, its_split, videos in _parts(path, _read(path), options.compression):
        seen.add(its_split)
        if split is not None and its_split.lower() not in SPLITS[split]:
            continue
        matched = True
        label = _label(path, label_name)
        for name, entry in videos.items():
            if not isinstance(entry, dict) or not isinstance(entry.get("frames"), list):
                lister.report.add("bad_line", f"{label_name}/{name}: has no list of frames")
                continue
            masks = _by_stem(files, entry.get("masks") or []) if label == 1 else {}
            frames = _frames(files, entry["frames"], masks)
            yield Video(f"{label_name}/{name}", label, label_name if label == 1 else ""), frames
    if not matched:
        raise DatasetError(f"{path}: no {split} split; found: {', '.join(sorted(seen)) or 'none'}. Expected {_SHAPE}.")


def _parts(path: str, content: dict[str, Any], compression: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(label name, split, its videos)."""
    check_not_coco(path, content)
    for labels in content.values():
        if not isinstance(labels, dict):
            raise DatasetError(f"{path}: not a list of DeepfakeBench. Expected {_SHAPE}.")
        for label_name, splits in labels.items():
            if not isinstance(splits, dict) or not all(isinstance(videos, dict) for videos in splits.values()):
                raise DatasetError(f"{path}: {label_name} is not an object of splits. Expected {_SHAPE}.")
            for split, videos in splits.items():
                if videos and set(videos) <= _LEVELS:
                    if compression not in videos:
                        raise DatasetError(
                            f"{path}: {label_name}/{split} has no compression {compression} (DATASETS.FF_COMPRESSION); "
                            f"found: {', '.join(sorted(videos))}"
                        )
                    videos = videos[compression]
                yield label_name, split, videos


def _label(path: str, name: str) -> int:
    lower = name.lower()
    if lower.endswith(_REAL_ENDINGS):
        return 0
    if lower.endswith(_FAKE_ENDINGS):
        return 1
    raise DatasetError(
        f"{path}: the label name {name!r} is not known; expected one that ends in {', '.join(_REAL_ENDINGS)} (real) or "
        f"{', '.join(_FAKE_ENDINGS)} (fake)"
    )


def _frames(files: ListedFiles, names: list[Any], masks: dict[str, str]) -> list[FrameFile]:
    resolved = [files.resolve(_posix(name)) for name in names if isinstance(name, str) and name.strip()]
    found = [name for name in resolved if name is not None]
    stems = [_stem(name) for name in found]
    numbers = [int(stem) for stem in stems] if all(s.isdecimal() for s in stems) else list(range(len(found)))
    frames = [
        FrameFile(name, number, masks.get(stem, "")) for name, number, stem in zip(found, numbers, stems, strict=True)
    ]
    return sorted(frames, key=lambda frame: frame.frame)


def _by_stem(files: ListedFiles, names: Any) -> dict[str, str]:
    if not isinstance(names, list):
        return {}
    paths = (files.resolve(_posix(name)) for name in names if isinstance(name, str) and name.strip())
    return {_stem(path): path for path in paths if path is not None}


def _posix(name: str) -> str:
    """Lists made on Windows have backslashes."""
    return name.strip().replace("\\", "/")


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _read(path: str) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: holds a JSON {type(content).__name__}. Expected {_SHAPE}.")
    return content
