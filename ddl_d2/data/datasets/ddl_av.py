"""DDL-AV, the audio-visual track of the DDL challenge (Deepfake Detection, Localization and Interpretability).

    {train,val}_data/{real,fake}_audio_{real,fake}_visual/.../x.mp4
    {train,val}_metadata_workshop/**.json   one for each clip: {"file": relative to train_data/ or val_data/,
                                            "modify_type", "visual_fake_segments", "audio_fake_segments",
                                            "video_frames"}
    test_data/*.mp4 (or test/)              without labels

Segments are seconds. A clip whose "modify_type" says that picture or sound is fake, without a segment of it, is forged
from end to end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ddl_d2.data.datasets.clip_columns import UNKNOWN_FRAMES, ClipEntry, Segments
from ddl_d2.data.datasets.clips import files_below, frames_of, json_entries, segments_of
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.errors import DatasetError
from ddl_d2.utils.segments import union

FOLDERS = {"train": "train_data", "valid": "val_data"}
"""Split -> the folder of its clips."""
_LABELS = {"train": "train_metadata_workshop", "valid": "val_metadata_workshop"}
_TEST = ("test_data", "test")
_FPS = 25.0  # of the published set


def is_ddl_av(root: str) -> bool:
    """Tell whether a folder looks like DDL-AV, by the names in it."""
    return any(os.path.isdir(os.path.join(root, name)) for name in _LABELS.values())


def list_ddl_av(lister: Lister, split: str | None) -> Iterator[ClipEntry]:
    """List the clips of a split ("train", "valid", "test"), or (None) of all that are labeled.

    Raises:
        DatasetError: the split's folder is not there, or a label is not JSON.
    """
    if split == "test":
        yield from _test_clips(lister)
        return
    found = False
    for one in [split] if split else list(FOLDERS):
        labels = os.path.join(lister.root, _LABELS[one])
        for path in files_below(labels, ".json", lister) if lister.stamps.is_folder(labels) else []:
            found = True
            for entry in json_entries(path, lister):
                try:
                    yield _clip(entry, FOLDERS[one])
                except ValueError as error:
                    lister.report.add("bad_line", f"{entry['file']}: {error}")
    if not found:
        raise DatasetError(f"{lister.root}: no labels of clips. Expected {' or '.join(_LABELS.values())}/**.json")


def _clip(entry: dict[str, Any], folder: str) -> ClipEntry:
    kind, frames = str(entry.get("modify_type", "")), frames_of(entry)
    video = _forged(entry, "visual_fake_segments", "fake_visual" in kind, frames)
    audio = _forged(entry, "audio_fake_segments", "fake_audio" in kind, frames)
    return ClipEntry(f"{folder}/{entry['file']}", int(bool(video or audio)), union(video, audio), video, audio, frames)


def _forged(entry: dict[str, Any], key: str, is_fake: bool, frames: int) -> Segments:
    """What is forged of picture or sound."""
    found = segments_of(entry.get(key) or [])
    if is_fake and not found:
        if frames == UNKNOWN_FRAMES:
            raise ValueError(f"is wholly forged, and no video_frames say how long it is ({key} is empty)")
        return ((0.0, frames / _FPS),)
    return found


def _test_clips(lister: Lister) -> Iterator[ClipEntry]:
    folder = next((name for name in _TEST if lister.stamps.is_folder(os.path.join(lister.root, name))), None)
    if folder is None:
        raise DatasetError(f"{lister.root}: none of the folders {', '.join(_TEST)} of the test clips is there")
    for path in files_below(os.path.join(lister.root, folder), ".mp4", lister):
        yield ClipEntry(os.path.relpath(path, lister.root).replace(os.sep, "/"), -1)
