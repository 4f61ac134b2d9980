"""LAV-DF (Cai et al., DICTA 2022) as it is published, and sets made by `ddl-d2 make-temporal-forgeries`.

    metadata.json or metadata.min.json      a list of {"file": "test/000001.mp4", "n_fakes", "fake_periods": [[s, e]],
                                            "modify_video", "modify_audio", "split", "video_frames", ...}
    {train,dev,test}/000001.mp4

Seconds throughout. Where an entry has `visual_fake_segments` and `audio_fake_segments`, as those of made sets have,
they say what is forged in picture and sound; else both are `fake_periods`, as far as they are modified.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ddl_d2.data.datasets.clip_columns import ClipEntry
from ddl_d2.data.datasets.clips import SPLIT_WORDS, forged_parts, frames_of, json_entries, segments_of
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.errors import DatasetError
from ddl_d2.utils.segments import union

TABLES = ("metadata.json", "metadata.min.json")
_HEAD = 65536


def is_lav_df(root: str) -> bool:
    """Tell whether a folder looks like LAV-DF: a list in it that begins with a clip's labels, as LAV-DF's does."""
    return any(_begins_with_a_clip(os.path.join(root, name)) for name in TABLES)


def list_lav_df(lister: Lister, split: str | None) -> Iterator[ClipEntry]:
    """List the clips of a split ("train", "valid", "test"), or (None) of all.

    Raises:
        DatasetError: no table, or one that is not JSON.
    """
    tables = [os.path.join(lister.root, name) for name in TABLES]
    table = next((path for path in tables if lister.stamps.is_file(path)), None)
    if table is None:
        raise DatasetError(f"{lister.root}: neither {' nor '.join(TABLES)} is in it. Expected LAV-DF's layout.")
    for entry in json_entries(table, lister):
        if split not in (None, _split_of(entry)):
            continue
        try:
            yield _clip(entry)
        except ValueError as error:
            lister.report.add("bad_line", f"{entry['file']}: {error}")


def _clip(entry: dict[str, Any]) -> ClipEntry:
    periods = segments_of(entry.get("fake_periods", []))
    forged = forged_parts(entry)
    video, audio = forged["video"], forged["audio"]
    fake = bool(periods or video or audio or entry.get("n_fakes") or entry.get("modify_video"))
    fake = fake or bool(entry.get("modify_audio"))
    both = periods or union(video, audio)
    if fake and not both:  # forged somewhere, nobody says where
        return ClipEntry(entry["file"], 1, num_frames=frames_of(entry))
    return ClipEntry(entry["file"], int(fake), both, video, audio, frames_of(entry))


def _split_of(entry: dict[str, Any]) -> str:
    """The split of an entry: what it says, else the folder of its file."""
    word = entry.get("split") or entry["file"].replace("\\", "/").lstrip("./").split("/")[0]
    return SPLIT_WORDS.get(str(word).lower(), "")


def _begins_with_a_clip(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    first = head.partition(b"}")[0]
    return head.startswith(b"[") and all(key in first for key in (b'"file"', b'"fake_periods"'))
