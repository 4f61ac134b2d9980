"""Celeb-DF v1 and v2: Celeb-real/, YouTube-real/, Celeb-synthesis/ and List_of_testing_videos.txt.

The list's labels are the other way round: 1 is REAL and 0 is fake. There are no masks and no validation split.
"""

from __future__ import annotations

import os

from ddl_d2.data.datasets.listing import Lister, is_within
from ddl_d2.data.datasets.text_files import read_text
from ddl_d2.data.datasets.video import Video, VideoOptions, videos_in
from ddl_d2.errors import DatasetError

LIST_NAME = "List_of_testing_videos.txt"
FOLDERS = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}
_REAL_IN_LIST = "1"


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
    if split is None:
        return list(found.values())
    listed = _read_list(lister, set(found))
    if split == "train":
        return [video for key, video in found.items() if key not in listed]
    return [video for key, video in found.items() if listed.get(key)]


def _read_list(lister: Lister, found: set[str]) -> dict[str, bool]:
    """folder/stem of what the list names -> whether its label agrees with its folder; what does not is reported."""
    path = os.path.join(lister.root, LIST_NAME)
    if not os.path.isfile(path):
        raise DatasetError(
            f'{path}: no such file. Expected the test split as lines "1 YouTube-real/00170.mp4" (1 real, 0 fake).'
        )
    if not is_within(path, lister.root):
        raise DatasetError(f"{path}: leads out of {lister.root}; it is not read")
    lister.stamps.note(path)
    listed: dict[str, bool] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        label, _, name = line.strip().partition(" ")
        if not label:
            continue
        folder, _, file = name.strip().partition("/")
        if label not in ("0", "1") or folder not in FOLDERS or not file:
            lister.report.add("bad_line", f"{LIST_NAME} line {number}: {line.strip()[:60]}")
            continue
        key = f"{folder}/{os.path.splitext(file)[0]}"
        agrees = (label == _REAL_IN_LIST) == (FOLDERS[folder] == 0)
        if not agrees:
            lister.report.add("conflicting_label", f"{LIST_NAME} line {number}: {line.strip()[:60]}")
        elif key not in found:
            lister.report.add("missing_file", name.strip()[:200])
        elif key in listed:
            lister.report.add("duplicate_entry", name.strip()[:200])
        listed[key] = agrees and listed.get(key, True)
    return listed
