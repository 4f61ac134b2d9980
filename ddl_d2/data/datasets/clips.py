"""What the layouts of audio-visual datasets share: reading labels, and turning them into rows.

A clip is one row, whose forged parts are given in seconds: of its picture, of its sound, and of either.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

from ddl_d2.data.datasets.clip_columns import UNKNOWN_FRAMES, ClipColumns, ClipEntry, Segments
from ddl_d2.data.datasets.listed_files import ListedFiles
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.data.datasets.text_files import read_json
from ddl_d2.errors import DatasetError

SPLIT_WORDS = {"train": "train", "dev": "valid", "val": "valid", "valid": "valid", "test": "test"}
"""What sets call a split -> what it is called here."""


def segments_of(value: Any) -> Segments:
    """Check a list of [start, end] in seconds, as JSON gives it.

    Raises:
        ValueError: says which is none.
    """
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:40]} is no list of [start, end]")
    found = []
    for segment in value:
        if not (isinstance(segment, list) and len(segment) == 2 and all(_is_number(end) for end in segment)):
            raise ValueError(f"{str(segment)[:40]} is not [start, end] in seconds")
        if not 0 <= segment[0] < segment[1]:
            raise ValueError(f"the segment {segment} does not end after it starts")
        found.append((float(segment[0]), float(segment[1])))
    return tuple(found)


def frames_of(entry: dict[str, Any]) -> int:
    """Read `video_frames` of a clip's labels; 0 if it is not there or no number."""
    value: Any = entry.get("video_frames")
    return int(value) if _is_number(value) and value >= 1 else UNKNOWN_FRAMES


def json_entries(path: str, lister: Lister) -> Iterator[dict[str, Any]]:
    """Read the clips' labels from a JSON file that holds a list of them, or those of one clip.

    Raises:
        DatasetError: it cannot be read as JSON, or holds neither.
    """
    lister.stamps.note(path)
    content = read_json(path)
    if not isinstance(content, (list, dict)):
        raise DatasetError(f"{path}: holds a JSON {type(content).__name__}, not the labels of clips")
    for number, entry in enumerate(content if isinstance(content, list) else [content], start=1):
        if isinstance(entry, dict) and isinstance(entry.get("file"), str) and entry["file"]:
            yield entry
        else:
            lister.report.add("bad_line", f"{os.path.basename(path)}, entry {number}: {str(entry)[:60]}")


def truth_of(labels: str | os.PathLike[str], clip: str | os.PathLike[str]) -> dict[str, Segments]:
    """Look up what is forged of a clip in a JSON file with labels, as LAV-DF and AV-Deepfake1M have them.

    Args:
        labels: the file.
        clip: whose path ends with the `file` of one entry, or whose name is that of one entry's file.

    Returns:
        what is forged, [s, e] in seconds, by modality ("video", "audio").

    Raises:
        DatasetError: not such a file, or no entry (or more than one) is the clip's.
    """
    path = os.path.abspath(clip).replace(os.sep, "/")
    report = DatasetReport()
    entries = list(json_entries(os.fspath(labels), Lister(os.path.dirname(os.path.abspath(labels)), report)))
    found = [entry for entry in entries if path.endswith("/" + entry["file"])]
    found = found or [entry for entry in entries if os.path.basename(entry["file"]) == os.path.basename(path)]
    if len(found) != 1:
        raise DatasetError(f"{labels}: has {len(found)} entries for {clip}; one is needed")
    try:
        return forged_parts(found[0])
    except ValueError as error:
        raise DatasetError(f"{labels}: {found[0]['file']}: {error}") from error


def forged_parts(entry: dict[str, Any]) -> dict[str, Segments]:
    """Read what is forged of a clip's picture ("video") and sound ("audio") from its labels.

    Lists of either's own count; without them `fake_periods`, as far as `modify_video` and `modify_audio` say.

    Raises:
        ValueError: a segment is none.
    """
    periods = segments_of(entry.get("fake_periods", []))
    names = {"video": ("visual_fake_segments", "modify_video"), "audio": ("audio_fake_segments", "modify_audio")}
    return {
        name: segments_of(entry[key]) if key in entry else periods if entry.get(flag) else ()
        for name, (key, flag) in names.items()
    }


def files_below(folder: str, suffix: str, lister: Lister) -> list[str]:
    """List the files below a folder whose names end so, as full paths, sorted; links are not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        lister.stamps.note(place)
        folders.sort()
        found += [os.path.join(place, name) for name in sorted(names) if name.lower().endswith(suffix)]
    return found


def clip_rows(entries: Iterable[ClipEntry], lister: Lister) -> ClipColumns:
    """Make rows of entries; what is not on disk, or is listed twice, goes into the report instead."""
    files = ListedFiles(lister)
    chosen: dict[str, ClipEntry] = {}
    for entry in entries:
        name = files.resolve(entry.name)
        if name is not None and name in chosen:
            lister.report.add("duplicate_entry", name)
        elif name is not None:
            chosen[name] = entry._replace(name=name)
    if not chosen:
        raise DatasetError(f"{lister.root}: none of the listed clips is there{_found(lister)}")
    return ClipColumns.from_entries(lister.root, list(chosen.values()))


def _found(lister: Lister) -> str:
    lines = lister.report.lines()
    return f": {lines[0]}" if lines else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
