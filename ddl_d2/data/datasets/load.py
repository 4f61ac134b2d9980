"""Loading a dataset of any layout: a path -> rows and a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict

from ddl_d2.data.datasets.av_deepfake1m import is_av_deepfake1m, list_av_deepfake1m
from ddl_d2.data.datasets.celeb_df import has_celeb_df_videos, is_celeb_df, list_celeb_df
from ddl_d2.data.datasets.clip_columns import ClipEntry
from ddl_d2.data.datasets.clips import clip_rows
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.ddl_av import is_ddl_av, list_ddl_av
from ddl_d2.data.datasets.ddl_i import load_flat, load_labeled_list
from ddl_d2.data.datasets.deepfakebench import read_deepfakebench
from ddl_d2.data.datasets.dfdc import (
    is_dfdc,
    is_dfdcp,
    list_dfdc,
    list_dfdcp,
    lists_dfdc_videos,
    lists_dfdcp_videos,
)
from ddl_d2.data.datasets.faceforensics import is_faceforensics, list_faceforensics
from ddl_d2.data.datasets.folder import load_labeled_folder, load_tampered_folder, load_unlabeled_folder
from ddl_d2.data.datasets.index_cache import Built, cached
from ddl_d2.data.datasets.json_list import load_json_list
from ddl_d2.data.datasets.lav_df import is_lav_df, list_lav_df
from ddl_d2.data.datasets.listing import Lister
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.data.datasets.splits import SPLITS, find_split, find_splits, holds_image, split_layout
from ddl_d2.data.datasets.video import Video, VideoOptions, frames_of_lists, frames_of_videos
from ddl_d2.errors import DatasetError

VIDEO_SETS: dict[str, Callable[[Lister, str | None, VideoOptions], list[Video]]] = {
    "ff": list_faceforensics,
    "celeb_df": list_celeb_df,
    "dfdc": list_dfdc,
    "dfdcp": list_dfdcp,
}
"""Sets of videos, by the first part of the names they are registered under."""
CLIP_SETS: dict[str, Callable[[Lister, str | None], Iterable[ClipEntry]]] = {
    "lav_df": list_lav_df,
    "av_deepfake1m": list_av_deepfake1m,
    "ddl_av": list_ddl_av,
}
"""Sets of clips with sound, by the first part of the names they are registered under."""
_CLIPS: dict[str, Callable[[str], bool]] = {
    "lav_df": is_lav_df,
    "av_deepfake1m": is_av_deepfake1m,
    "ddl_av": is_ddl_av,
}
# By their names alone, and by what is in their lists.
_NAMED: dict[str, Callable[[str], bool]] = {
    "ff": is_faceforensics,
    "celeb_df": is_celeb_df,
    "dfdcp": is_dfdcp,
    "dfdc": is_dfdc,
}
_CONTENT: dict[str, Callable[[str], bool]] = {
    "ff": is_faceforensics,
    "celeb_df": has_celeb_df_videos,
    "dfdcp": lists_dfdcp_videos,
    "dfdc": lists_dfdc_videos,
}


def load_dataset(
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    fake_without_mask: str = "skip",
    video: VideoOptions | None = None,
) -> tuple[DatasetColumns, DatasetReport]:
    """Load whatever dataset lies at `root`.

    Args:
        root: a folder in any layout of datasets/README.md, one that holds such folders under split names (also inside
            wrapper folders), or a JSON list (of images, or DeepfakeBench's).
        split: "train", "valid" or "test"; None if `root` is, or holds, just one.
        fake_without_mask: "skip", "full", "score" or "error" (see `assemble`).
        video: how videos become rows, where there are any.

    Returns:
        rows (their `root` is the split's folder or the list's; `image_id` is relative to it) and the report.

    Raises:
        DatasetError: nothing usable there, or more than one possibility; the message says what was looked for.
    """
    given = os.path.expanduser(os.fspath(root))
    if not os.path.exists(given):
        raise DatasetError(f"{given}: no such file or folder")
    real = os.path.realpath(given)
    if os.path.isfile(real):
        if _is_deepfakebench(real):
            return load_deepfakebench(real, split, fake_without_mask=fake_without_mask, options=video)
        return _load_list(real, split, fake_without_mask)
    if not os.path.isdir(real):
        raise DatasetError(f"{given}: is neither a folder nor a JSON list")
    clips = clip_set_at(real)
    if clips:
        return load_clip_set(clips, real, split)
    kind = video_set_at(real)
    if kind:
        return load_video_set(kind, real, split, fake_without_mask=fake_without_mask, options=video)
    folder = find_split(real, split) if split else _only_split(real)
    return load_folder(folder, within=real, fake_without_mask=fake_without_mask)


def load_folder(
    folder: str, *, within: str | None = None, fake_without_mask: str = "skip"
) -> tuple[DatasetColumns, DatasetReport]:
    """Load one folder, whose layout is told by what is in it.

    Args:
        folder: of images.
        within: where links may lead; by default into `folder` only.
        fake_without_mask: as of `load_dataset`.

    Returns:
        rows and the report.

    Raises:
        DatasetError: nothing usable there.
    """
    folder = os.path.realpath(folder)
    root = os.path.realpath(within or folder)
    layout = _layout(folder)
    loaders: dict[str, Callable[[Lister], DatasetColumns]] = {
        "A": lambda lister: load_labeled_folder(folder, lister, fake_without_mask=fake_without_mask),
        "B": lambda lister: load_labeled_list(folder, lister, fake_without_mask=fake_without_mask),
        "C": lambda lister: load_flat(folder, lister),
        "Tp": lambda lister: load_tampered_folder(folder, lister, fake_without_mask=fake_without_mask),
        "": lambda lister: load_unlabeled_folder(folder, lister),
    }
    key = {"folder": folder, "root": root, "layout": layout, "fake_without_mask": fake_without_mask}
    return cached(key, lambda: _build(root, loaders[layout]))


def datasets_at(root: str | os.PathLike[str]) -> list[tuple[str, str | None]]:
    """List the datasets that lie at `root`, one by one.

    Returns:
        (root, split) of each, as `load_dataset` takes them; (root, None) if there is one, or none.
    """
    given = os.path.realpath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(given) or clip_set_at(given) or video_set_at(given) or is_one_dataset(given):
        return [(os.fspath(root), None)]
    found: list[tuple[str, str | None]] = []
    for split, paths in find_splits(given).items():
        folders = [path for path in paths if path != given]
        # Of several for one split, which `load_dataset` does not choose between, each is a dataset.
        found += [(os.fspath(root), split)] if len(paths) == 1 == len(folders) else [(path, None) for path in folders]
    return found or [(os.fspath(root), None)]


def video_set_at(root: str) -> str:
    """Tell which of `VIDEO_SETS` lies in a folder, by its folders and by what is in its lists; "" for none.

    A file that is named like a list of videos does not make a dataset of videos out of one of images: folders of real
    and fake images come first, then what lists say; and where nothing else is there, their names are believed.
    """
    named = [kind for kind, is_there in _NAMED.items() if is_there(root)]
    if not named or holds_labeled_images(root):
        return ""
    sure = [kind for kind in named if _CONTENT[kind](root)]
    return (sure or ([] if holds_image(root) else named) or [""])[0]


def holds_labeled_images(root: str) -> bool:
    """Tell whether a folder, or a split directly in it, holds real and fake images."""
    folders = [root, *(os.path.join(root, name) for names in SPLITS.values() for name in names)]
    return any(is_one_dataset(folder) and holds_image(folder) for folder in folders)


def load_video_set(
    kind: str,
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    fake_without_mask: str = "skip",
    options: VideoOptions | None = None,
) -> tuple[DatasetColumns, DatasetReport]:
    """Load one of `VIDEO_SETS`.

    Args:
        kind: a key of `VIDEO_SETS`.
        root: its folder.
        split: "train", "valid" or "test", as far as the set has them; None = all videos.
        fake_without_mask: see `frames_of_videos`.
        options: see there; default `VideoOptions()`.

    Returns:
        rows (a `FrameColumns`) and the report.

    Raises:
        DatasetError: a file or folder is missing; names it and says what was expected.
    """
    chosen = options or VideoOptions()
    folder = os.path.realpath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(folder):
        raise DatasetError(f"{root}: no such folder")

    def load(lister: Lister) -> DatasetColumns:
        return frames_of_videos(
            VIDEO_SETS[kind](lister, split, chosen),
            lister,
            options=chosen,
            fake_without_mask=fake_without_mask,
        )

    key = {"videos": kind, "root": folder, "split": split, "fake_without_mask": fake_without_mask, **asdict(chosen)}
    return cached(key, lambda: _build(folder, load))


def clip_set_at(root: str) -> str:
    """Tell which of `CLIP_SETS` lies in a folder, by the names in it and how its list begins; "" for none.

    Folders of real and fake images come first, as in `video_set_at`.
    """
    found = next((kind for kind, is_there in _CLIPS.items() if is_there(root)), "")
    return found if found and not holds_labeled_images(root) else ""


def load_clip_set(
    kind: str, root: str | os.PathLike[str], split: str | None = None
) -> tuple[DatasetColumns, DatasetReport]:
    """Load one of `CLIP_SETS`.

    Args:
        kind: a key of `CLIP_SETS`.
        root: its folder.
        split: "train", "valid" or "test"; None = all clips that are labeled.

    Returns:
        rows (a `ClipColumns`) and the report.

    Raises:
        DatasetError: labels or clips are missing; names them and says what was expected.
    """
    folder = os.path.realpath(os.path.expanduser(os.fspath(root)))
    if not os.path.isdir(folder):
        raise DatasetError(f"{root}: no such folder")
    key = {"clips": kind, "root": folder, "split": split}
    return cached(key, lambda: _build(folder, lambda lister: clip_rows(CLIP_SETS[kind](lister, split), lister)))


def load_deepfakebench(
    path: str, split: str | None = None, *, fake_without_mask: str = "skip", options: VideoOptions | None = None
) -> tuple[DatasetColumns, DatasetReport]:
    """Load a JSON list of DeepfakeBench; arguments and errors as `load_video_set`'s."""
    chosen = options or VideoOptions()
    real = os.path.realpath(os.path.expanduser(path))
    root = os.path.realpath(os.path.expanduser(chosen.frame_root)) if chosen.frame_root else os.path.dirname(real)

    def load(lister: Lister) -> DatasetColumns:
        return frames_of_lists(
            read_deepfakebench(real, lister, split, chosen),
            lister,
            frames_per_video=chosen.frames_per_video,
            fake_without_mask=fake_without_mask,
        )

    key = {"deepfakebench": real, "root": root, "split": split, "fake_without_mask": fake_without_mask}
    return cached({**key, **asdict(chosen)}, lambda: _build(root, load))


def _is_deepfakebench(path: str) -> bool:
    """Whether a JSON file begins with an object, as DeepfakeBench's lists do."""
    with open(path, "rb") as file:
        return path.lower().endswith(".json") and file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _load_list(path: str, split: str | None, fake_without_mask: str) -> tuple[DatasetColumns, DatasetReport]:
    if split:
        raise DatasetError(f"{path}: a JSON list has no splits; leave out {split!r}")
    if not path.lower().endswith(".json"):
        raise DatasetError(f"{path}: is a file, but not a .json list of images; give the folder or the list")
    root = os.path.dirname(path)
    key = {"list": path, "root": root, "fake_without_mask": fake_without_mask}
    return cached(
        key, lambda: _build(root, lambda lister: load_json_list(path, lister, fake_without_mask=fake_without_mask))
    )


def _build(root: str, load: Callable[[Lister], DatasetColumns]) -> Built:
    lister = Lister(root, DatasetReport())
    try:
        rows = load(lister)
    except OSError as error:
        raise DatasetError(f"{error.filename or root}: cannot be listed ({error.strerror})") from error
    return rows, lister.report, lister.stamps


def is_one_dataset(folder: str) -> bool:
    """Tell whether labeled images lie in a folder itself, not in splits below it."""
    return _layout(folder) in ("A", "B", "Tp")


def _layout(folder: str) -> str:
    if all(os.path.isdir(os.path.join(folder, name)) for name in ("Tp", "Gt")):
        return "Tp"
    return split_layout(folder)


def _only_split(root: str) -> str:
    """`root` if it is a dataset of its own, or the single split below it."""
    if is_one_dataset(root):
        return root
    found = {split: paths for split, paths in find_splits(root).items() if paths != [root]}
    folders = [path for paths in found.values() for path in paths]
    if len(folders) == 1:
        return folders[0]
    if folders:
        listed = ", ".join(f"{split} ({os.path.relpath(p, root)})" for split, paths in found.items() for p in paths)
        raise DatasetError(f"{root}: holds several splits: {listed}. Say which (--split), or give the folder itself.")
    return root
