"""AV-Deepfake1M (Cai et al., ACM MM 2024) and AV-Deepfake1M++.

    {train,val}_metadata.json       a list of {"file", "split", "visual_fake_segments", "audio_fake_segments",
                                    "fake_segments", "video_frames", ...}; or one JSON for each clip instead, in
                                    {train,val}_metadata/ or beside the clips (++)
    {train,val,test}/.../x.mp4      "file" is relative to the split's folder, or to the root
    test_files.txt                  the test clips, which have no labels

What is forged in picture and sound is told by the two lists, not by "modify_type".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ddl_d2.data.datasets.clip_columns import ClipEntry
from ddl_d2.data.datasets.clips import files_below, frames_of, json_entries, segments_of
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.text_files import read_lines
from ddl_d2.errors import DatasetError
from ddl_d2.utils.segments import union

FOLDERS = {"train": "train", "valid": "val", "test": "test"}
"""Split -> its folder."""
TEST_LIST = "test_files.txt"


def is_av_deepfake1m(root: str) -> bool:
    """Tell whether a folder looks like AV-Deepfake1M, by the names in it."""
    names = ("train_metadata.json", "val_metadata.json", "train_metadata", "val_metadata")
    return any(os.path.exists(os.path.join(root, name)) for name in names)


def list_av_deepfake1m(lister: Lister, split: str | None) -> Iterator[ClipEntry]:
    """List the clips of a split ("train", "valid", "test"), or (None) of all that are labeled.

    Raises:
        DatasetError: no labels (of "test": no list) are there, or they are not JSON.
    """
    if split == "test":
        yield from _test_clips(lister)
        return
    found = False
    for name in [FOLDERS[split]] if split else [FOLDERS["train"], FOLDERS["valid"]]:
        for path in _tables(lister, name):
            found = True
            for entry in json_entries(path, lister):
                try:
                    yield _clip(entry, lister, name)
                except ValueError as error:
                    lister.report.add("bad_line", f"{entry['file']}: {error}")
    if not found:
        raise DatasetError(
            f"{lister.root}: no {split or 'train or val'} labels: expected train_metadata.json or the like"
        )


def _tables(lister: Lister, folder: str) -> list[str]:
    """The JSON files with the labels of a split's folder."""
    table = os.path.join(lister.root, f"{folder}_metadata.json")
    if lister.stamps.is_file(table):
        return [table]
    for place in (f"{folder}_metadata", folder):
        path = os.path.join(lister.root, place)
        tables = files_below(path, ".json", lister) if lister.stamps.is_folder(path) else []
        if tables:
            return tables
    return []


def _clip(entry: dict[str, Any], lister: Lister, folder: str) -> ClipEntry:
    video = segments_of(entry.get("visual_fake_segments", []))
    audio = segments_of(entry.get("audio_fake_segments", []))
    both = segments_of(entry["fake_segments"]) if "fake_segments" in entry else union(video, audio)
    fake = bool(video or audio or both) or entry.get("modify_type", "real") != "real"
    name, frames = _file(entry["file"], lister, folder), frames_of(entry)
    if fake and not both:  # forged somewhere, nobody says where
        return ClipEntry(name, 1, num_frames=frames)
    return ClipEntry(name, int(fake), both, video, audio, frames)


def _file(name: str, lister: Lister, folder: str) -> str:
    """A clip's path relative to the root."""
    inside = f"{folder}/{name}"
    return inside if os.path.isfile(os.path.join(lister.root, inside)) else name


def _test_clips(lister: Lister) -> Iterator[ClipEntry]:
    path = os.path.join(lister.root, TEST_LIST)
    if not lister.stamps.is_file(path):
        raise DatasetError(f"{path}: no such file. Expected the list of AV-Deepfake1M's test clips.")
    lister.stamps.note(path)
    for line in read_lines(path):
        if line.strip():
            yield ClipEntry(_file(line.strip(), lister, FOLDERS["test"]), -1)
