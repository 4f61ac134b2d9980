"""The Deepfake Detection Challenge's videos, and its preview set (DFDCP).

    DFDC    <any folder>/metadata.json   {"x.mp4": {"label": "FAKE" | "REAL", "split": "train"}, ...}, videos beside it
            <any folder>/labels.csv      filename,label (1 fake, 0 real), videos beside it or in videos/
    DFDCP   dataset.json                 {"method_A/.../x.mp4": {"label": "fake" | "real", "set": "train", ...}, ...}

There are no masks.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from typing import Any

from ddl_d2.data.datasets.listed_files import ListedFiles
from ddl_d2.data.datasets.listed_names import LABEL_WORDS, label_of, unquoted
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.text_files import decoded, read_json, read_lines
from ddl_d2.data.datasets.video import Video, VideoOptions, subfolders_and_files
from ddl_d2.errors import DatasetError
from ddl_d2.io.file_names import is_image

METADATA, LABELS, PREVIEW = "metadata.json", "labels.csv", "dataset.json"
_SPLITS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
_MAX_DEPTH = 3
_HEAD = 65536
_FIRST_ENTRY = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)+)"\s*:\s*\{([^{}]*)')


def is_dfdc(root: str) -> bool:
    """Tell whether a folder looks like DFDC, or one part of it, by the names in it."""
    return bool(_part_tables(root)) or any(os.path.isfile(os.path.join(root, name)) for name in (METADATA, LABELS))


def lists_dfdc_videos(root: str) -> bool:
    """Tell whether a metadata.json or labels.csv of a folder, or of a part of DFDC in it, begins as DFDC's do."""
    tables = [os.path.join(root, METADATA), *_part_tables(root)]
    return any(_names_a_video(path, ("label",)) for path in tables) or _begins_like_labels(os.path.join(root, LABELS))


def is_dfdcp(root: str) -> bool:
    """Tell whether a folder looks like DFDCP, by the names in it."""
    return os.path.isfile(os.path.join(root, PREVIEW))


def lists_dfdcp_videos(root: str) -> bool:
    """Tell whether the dataset.json of a folder begins as DFDCP's does."""
    return _names_a_video(os.path.join(root, PREVIEW), ("label", "set"))


def list_dfdc(lister: Lister, split: str | None, options: VideoOptions) -> list[Video]:
    """List the videos of every metadata.json and labels.csv up to three folders down, of one split or (None) of all.

    A video's split is its entry's "split"; else that of the folder it lies in ("train", "valid...", "test"); else
    "test" for a labels.csv and "train" for a metadata.json.

    Raises:
        DatasetError: no such file, one that is not JSON, or no video of the split; says what was expected.
    """
    if split not in (None, "train", "valid", "test"):
        raise DatasetError(f"{lister.root}: DFDC has the splits train, valid and test, not {split!r}")
    files = ListedFiles(lister)
    tables = list(_tables(lister))
    if not tables:
        raise DatasetError(
            f"{lister.root}: neither {METADATA} nor {LABELS} in it or up to {_MAX_DEPTH} folders down. Expected "
            f'dfdc_train_part_*/{METADATA} with {{"x.mp4": {{"label": "FAKE"}}, ...}} and the videos beside it.'
        )
    videos: dict[str, Video] = {}
    seen: set[str] = set()
    for folder, table in tables:
        entries = _read_metadata(lister, folder) if table == METADATA else _read_labels(lister, folder)
        for name, label, of_split in entries:
            its_split = of_split or _split_of(folder) or ("test" if table == LABELS else "train")
            seen.add(its_split)
            if split not in (None, its_split):
                continue
            path = files.resolve(os.path.join(folder, name).removeprefix("./"))
            if path is not None:
                videos[path] = Video(path, label, "DFDC" if label == 1 else "")
    if not videos and split not in seen and split is not None:
        raise DatasetError(
            f"{lister.root}: no {split} video of DFDC; found: {', '.join(sorted(seen)) or 'none at all'}"
        )
    return list(videos.values())


def list_dfdcp(lister: Lister, split: str | None, options: VideoOptions) -> list[Video]:
    """List the videos of dataset.json, of one split ("train", "test") or (None) of all; paths relative to the root.

    Raises:
        DatasetError: the file is missing or not such a list, or has no such split; says what was expected.
    """
    path = os.path.join(lister.root, PREVIEW)
    if not os.path.isfile(path):
        raise DatasetError(
            f'{path}: no such file. Expected {{"method_A/.../x.mp4": {{"label": "fake", "set": "train"}}, ...}}.'
        )
    files = ListedFiles(lister)
    videos, seen = [], set()
    for name, entry in _object(lister, PREVIEW).items():
        label = _label(lister, name, entry, PREVIEW)
        its_split = _SPLITS.get(str(entry.get("set", "")).strip().lower(), "") if isinstance(entry, dict) else ""
        seen.add(its_split)
        if label is None or split not in (None, its_split):
            continue
        resolved = files.resolve(name)
        if resolved is not None:
            videos.append(Video(resolved, label, resolved.split("/")[0] if label == 1 else ""))
    if split is not None and split not in seen:
        raise DatasetError(f'{path}: no entry has the "set" {split}; found: {", ".join(sorted(seen)) or "none"}')
    return videos


def _part_tables(root: str) -> list[str]:
    """The metadata.json of each part of DFDC in a folder."""
    try:
        with os.scandir(root) as entries:
            parts = [entry.path for entry in entries if entry.name.startswith("dfdc_train_part")]
    except OSError:
        return []
    return [path for part in sorted(parts) if os.path.isfile(path := os.path.join(part, METADATA))]


def _names_a_video(path: str, keys: tuple[str, ...]) -> bool:
    """Whether a JSON file begins like {"x.mp4": {..., key: ...}}. It may be large, and is not read further."""
    first = _FIRST_ENTRY.match(_head(path))
    return first is not None and not is_image(first[1]) and all(f'"{key}"' in first[2] for key in keys)


def _begins_like_labels(path: str) -> bool:
    """Whether a CSV file has the columns of DFDC's labels, and lists something else than images."""
    rows = [[cell.strip().strip('"') for cell in line.split(",")] for line in _head(path).splitlines()[:2]]
    columns = [column.lower() for column in rows[0]] if rows else []
    if len(rows) < 2 or not {"filename", "label"} <= set(columns) or len(rows[1]) < len(columns):
        return False
    return not is_image(rows[1][columns.index("filename")])


def _head(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return decoded(file.read(_HEAD))
    except OSError:
        return ""


def _tables(lister: Lister) -> Iterator[tuple[str, str]]:
    """(folder relative to the root, name of the table in it), nearest first; folders below a table are not searched."""
    level = [""]
    for _ in range(_MAX_DEPTH + 1):
        below: list[str] = []
        for folder in level:
            folders, files = subfolders_and_files(lister, folder or ".")
            tables = [name for name in (METADATA, LABELS) if name in files]
            # A test folder may have both: then the list of labels is the complete one.
            if tables:
                yield folder or ".", tables[-1]
            else:
                below += [f"{folder}/{name}".lstrip("/") for name in folders]
        level = below


def _split_of(folder: str) -> str:
    for part in reversed(folder.lower().split("/")):
        for name, split in _SPLITS.items():
            if part == name or part.startswith((f"dfdc_{name}", f"{name}_")):
                return split
    return ""


def _read_metadata(lister: Lister, folder: str) -> Iterator[tuple[str, int, str]]:
    """(file name, label, split or "") of the entries."""
    for name, entry in _object(lister, os.path.join(folder, METADATA)).items():
        label = _label(lister, name, entry, METADATA)
        written = str(entry.get("split") or "") if isinstance(entry, dict) else ""
        its_split = _SPLITS.get(written.strip().lower(), "")
        if written and not its_split:  # not to be taken for training
            lister.report.add("bad_line", f"{METADATA}: {name[:60]}: the split {written[:60]} is not known")
        elif label is not None:
            yield unquoted(name), label, its_split


def _read_labels(lister: Lister, folder: str) -> Iterator[tuple[str, int, str]]:
    path = os.path.join(lister.root, folder, LABELS)
    lister.stamps.note(path)
    inner = "videos/" if lister.stamps.is_folder(os.path.join(lister.root, folder, "videos")) else ""
    try:
        columns, *rows = list(csv.reader(read_lines(path))) or [[]]
    except csv.Error as error:
        raise DatasetError(f"{path}: cannot be read as CSV ({error})") from error
    columns = [unquoted(column).lower() for column in columns]
    if not {"filename", "label"} <= set(columns):
        raise DatasetError(f'{path}: expected the columns "filename" and "label", found {columns}')
    for number, cells in enumerate(rows, start=2):
        row = dict(zip(columns, cells, strict=False))
        name, label = unquoted(row.get("filename", "")), label_of(row.get("label"))
        if not any(cells):
            continue
        if not name or label is None:
            lister.report.add("bad_line", f"{LABELS} line {number}: {','.join(cells)[:60]} (labels are {LABEL_WORDS})")
        else:
            yield inner + name, label, ""


def _object(lister: Lister, name: str) -> dict[str, Any]:
    path = os.path.join(lister.root, name)
    lister.stamps.note(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(
            f'{path}: holds a JSON {type(content).__name__}; expected {{"x.mp4": {{"label": ...}}, ...}}'
        )
    return content


def _label(lister: Lister, name: str, entry: Any, table: str) -> int | None:
    """0 or 1; None, and an entry in the report, for what cannot be understood."""
    label = label_of(entry.get("label")) if isinstance(entry, dict) else None
    if label is None or not name.strip():
        lister.report.add("bad_line", f"{table}: {name[:60]}: {str(entry)[:60]}")
        return None
    return label
