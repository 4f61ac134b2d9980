"""Celeb-DF v1 and v2: Celeb-real/, YouTube-real/, Celeb-synthesis/ and List_of_testing_videos.txt.

The list's labels are the other way round: 1 is REAL and 0 is fake. There are no masks and no validation split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container

from ddl_d2.data.datasets.listed_names import same_text, unquoted, with_slashes
from ddl_d2.data.datasets.listing import Lister, is_within
from ddl_d2.data.datasets.text_files import read_lines
from ddl_d2.data.datasets.video import Video, VideoOptions, videos_in
from ddl_d2.errors import DatasetError

LIST_NAME = "List_of_testing_videos.txt"
FOLDERS = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}
_REAL_IN_LIST = "1"
_WORDS = {"0": "0", "1": "1", "0.0": "0", "1.0": "1", "real": "1", "fake": "0"}
_WORD = re.compile(r"[\w-]+")
_SEPARATORS = re.compile(r"[\s,;]+")
_EXPECTED = 'the test split as lines "1 YouTube-real/00170.mp4" (1 real, 0 fake)'


def is_celeb_df(root: str) -> bool:
    """Tell whether a folder looks like Celeb-DF."""
    return os.path.isfile(os.path.join(root, LIST_NAME)) or os.path.isdir(os.path.join(root, "Celeb-synthesis"))


def has_celeb_df_videos(root: str) -> bool:
    """Tell whether a folder has one of Celeb-DF's folders."""
    return any(os.path.isdir(os.path.join(root, folder)) for folder in FOLDERS)


def list_celeb_df(lister: Lister, split: str | None, options: VideoOptions) -> list[Video]:
    """List the videos of "test" (those of the list), of "train" (all others), or all (None).

    Raises:
        DatasetError: the list or the folders are missing, or another split is asked for; says what was expected.
    """
    root = lister.root
    if split not in (None, "train", "test"):
        raise DatasetError(f"{root}: Celeb-DF has the splits train and test, not {split!r}")
    found = {
        f"{folder}/{stem}": Video(name, label, "" if label == 0 else "Celeb-synthesis")
        for folder, label in FOLDERS.items()
        for stem, name in videos_in(lister, folder).items()
    }
    if not found:
        expected = ", ".join(f"{folder}/*.mp4" for folder in FOLDERS)
        raise DatasetError(f"{root}: no video of Celeb-DF in it. Expected {expected} and {LIST_NAME}.")
    if split is None and not lister.stamps.is_file(os.path.join(root, LIST_NAME)):
        return list(found.values())
    listed = _read_list(lister, split, found)
    if split is None:
        return list(found.values())
    if split == "train":
        return [video for key, video in found.items() if key not in listed]
    return [video for key, video in found.items() if listed.get(key)]


def _read_list(lister: Lister, split: str | None, found: Container[str]) -> dict[str, bool]:
    """folder/stem of all that the list names -> whether it is for test; if in doubt, it is for nothing.

    Raises:
        DatasetError: there is no such list, or a split is asked for and no line of the list can be understood: then
            nobody knows which videos are not for training.
    """
    path = os.path.join(lister.root, LIST_NAME)
    if not os.path.isfile(path):
        raise DatasetError(f"{path}: no such file. Expected {_EXPECTED}.")
    if not is_within(path, lister.root):
        raise DatasetError(f"{path}: leads out of {lister.root}; it is not read")
    lister.stamps.note(path)
    listed: dict[str, bool] = {}
    understood = 0
    for number, text in enumerate(map(str.strip, read_lines(path)), start=1):
        if not text:
            continue
        where = f"{LIST_NAME} line {number}: {text[:60]}"
        folder, stem, label = _parsed(text)
        if label is None or not folder:
            lister.report.add("bad_line", f"{where} (expected {_EXPECTED})")
            # Whatever it may mean: what it mentions is not for training.
            listed |= {f"{name}/{word}": False for name in FOLDERS for word in _WORD.findall(text)}
            continue
        understood += 1
        key = f"{folder}/{stem}"
        agrees = (label == _REAL_IN_LIST) == (FOLDERS[folder] == 0)
        if not agrees:
            lister.report.add("conflicting_label", where)
        elif key not in found:
            lister.report.add("missing_file", text[:200])
        elif key in listed:
            lister.report.add("duplicate_entry", text[:200])
        listed[key] = agrees and listed.get(key, True)
    if not understood and split is not None:
        raise DatasetError(
            f"{path}: no line of it can be understood, so nothing tells test from train. Expected {_EXPECTED}."
        )
    return listed


def _parsed(text: str) -> tuple[str, str, str | None]:
    """(folder or "", stem of the video, "0", "1" or None) of a line, whose label may stand before or behind the path.

    Paths may be those of Windows, longer, or in quotes; labels may be numbers or words.
    """
    labels: list[str] = []
    others: list[str] = []
    for part in _SEPARATORS.split(with_slashes(text)):
        word = unquoted(part)
        label = _WORDS.get(word.lower())
        if label is None:
            others.append(word)
        else:
            labels.append(label)
    path = next((word for word in others if "/" in word or "." in word), "".join(others[:1]))
    *folders, file = same_text(path).split("/")
    folder = next((name for name in reversed(folders) if name in FOLDERS), "")
    return folder, os.path.splitext(file)[0], labels[0] if len(labels) == 1 else None
