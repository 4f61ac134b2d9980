"""Listing folders fast, and without leaving the dataset's root."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from ddl_d2.data.datasets.listed_names import same_text
from ddl_d2.data.datasets.report import MAX_EXAMPLES, DatasetReport
from ddl_d2.data.datasets.stamps import Stamps
from ddl_d2.io.file_kinds import image_format, is_read, read_head
from ddl_d2.io.file_names import is_image, says_nothing

MASK_FOLDERS = ("masks", "mask")
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_DEPTH = 32


def has_usable_name(name: str) -> bool:
    """Tell whether a file name is text without control characters, which lists and stores can hold."""
    return name.isprintable() or not _UNUSABLE.search(name)


def is_within(path: str, root: str) -> bool:
    """Tell whether `path`, with links followed, lies in `root` (itself a real path)."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


class Lister:
    """Lists the images below a root, once each folder, in no more than one call to the system per folder.

    Files are told by the folder's own entries (no `stat` for each), and where their names say nothing by how they
    begin. Names that cannot be used, links out of the root, pipes and files of other kinds go into the report. Links to
    folders are followed only where a layout names the folder itself (`root/fake`), never while descending, so no loop
    can arise.

    Args:
        root: the real path of the folder that nothing may leave.
        report: receives what cannot be used.

    Attributes:
        stamps: of what was read, which is what a stored index depends on.
    """

    def __init__(self, root: str, report: DatasetReport) -> None:
        self.root = root
        self.report = report
        self.stamps = Stamps()

    def images(self, folder: str, *, skip: Callable[[str], bool] = lambda name: False) -> list[str]:
        """List the images in and below `folder`, relative to it, sorted; `skip` leaves out folders at the top."""
        if not self.stamps.is_folder(folder):
            return []
        if not is_within(folder, self.root):
            self.stamps.note(folder)
            self.report.add("link_outside", self._shown(folder))
            return []
        found: list[str] = []
        pending = [("", 0)]
        while pending:
            prefix, depth = pending.pop()
            names, folders = self._list(folder, prefix)
            found.extend(names if not prefix else [prefix + name for name in names])
            if depth < _MAX_DEPTH:
                pending.extend((f"{prefix}{name}/", depth + 1) for name in folders if depth or not skip(name))
        found.sort()
        return found

    def _list(self, top: str, prefix: str) -> tuple[list[str], list[str]]:
        folder = os.path.join(top, prefix) if prefix else top
        self.stamps.note(folder)
        names, folders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                image = is_image(name)
                usable = has_usable_name(name)
                if image and usable and entry.is_file(follow_symlinks=False):
                    names.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    if usable:
                        folders.append(name)
                    else:
                        self.report.add("unreadable_name", prefix + name)
                elif self._odd_entry(entry, prefix + name, image or self._begins_like_an_image(entry, prefix + name)):
                    names.append(name)
        return names, folders

    def _begins_like_an_image(self, entry: os.DirEntry[str], shown: str) -> bool:
        """Whether a file whose name says nothing is an image; one of a format that is not read is reported."""
        if not says_nothing(entry.name) or not os.path.isfile(entry.path) or not is_within(entry.path, self.root):
            return False
        self.stamps.note(entry.path)
        try:
            found = image_format(read_head(entry.path))
        except OSError as error:
            self.stamps.complete = False
            self.report.add("unopened_file", f"{shown}: {error.strerror}")
            return False
        if found and not is_read(found):
            self.report.add("unread_format", f"{shown}: {found}")
        return bool(found)

    def _odd_entry(self, entry: os.DirEntry[str], shown: str, image: bool) -> bool:
        """Report an entry that is not plainly an image or a folder; True if it is an image all the same."""
        if not image:
            if entry.is_symlink() and os.path.isdir(entry.path):
                inside = is_within(entry.path, self.root)
                self.report.add("other_file" if inside else "link_outside", shown)
            elif not entry.name.startswith("."):
                self.report.add("other_file", shown)
            return False
        if not has_usable_name(entry.name):
            self.report.add("unreadable_name", shown)
        elif entry.is_file(follow_symlinks=False):
            return True
        elif not entry.is_symlink() or not os.path.isfile(entry.path):
            self.report.add("not_a_file", shown)
        elif not is_within(entry.path, self.root):
            self.report.add("link_outside", shown)
        else:
            return True
        return False

    def _shown(self, path: str) -> str:
        return os.path.relpath(path, self.root)


def pair_masks(fakes: list[str], masks: list[str], report: DatasetReport, prefix: str = "") -> list[str]:
    """Find the mask of each fake, by full name first, then by stem.

    A stem pairs only if a single fake without a mask of its full name, and a single mask not yet taken, have it. A
    mask's stem may end in "_gt" or "_mask".

    Args:
        fakes: sorted names, relative to their folder.
        masks: likewise.
        report: receives `fake_without_mask`, `ambiguous_mask`, `mask_without_fake`.
        prefix: of a mask's name in the report.

    Returns:
        One mask per fake, "" for none.
    """
    if not masks:
        for name in fakes[:MAX_EXAMPLES]:
            report.add("fake_without_mask", name)
        if len(fakes) > MAX_EXAMPLES:
            report.counts["fake_without_mask"] += len(fakes) - MAX_EXAMPLES
        return [""] * len(fakes)
    available = set(masks)
    paired = [name if name in available else "" for name in fakes]
    if all(paired) and len(paired) == len(available):
        return paired
    available.difference_update(paired)
    waiting: dict[str, list[int]] = {}
    for index, name in enumerate(fakes):
        if not paired[index]:
            waiting.setdefault(_stem(name), []).append(index)
    candidates: dict[str, list[str]] = {}
    for mask in sorted(available):
        stem = _stem(mask)
        plain = re.sub(r"_(gt|mask)$", "", stem)
        candidates.setdefault(stem if stem in waiting else plain, []).append(mask)
    taken_stems = {_stem(mask) for mask in paired if mask}
    for stem, indices in waiting.items():
        options = candidates.get(stem, [])
        if len(indices) == len(options) == 1:
            paired[indices[0]] = options[0]
            available.discard(options[0])
            continue
        ambiguous = bool(options) or stem in taken_stems
        for index in indices:
            report.add("ambiguous_mask" if ambiguous else "fake_without_mask", fakes[index])
        if ambiguous:
            available.difference_update(options)
    for mask in sorted(available):
        report.add("mask_without_fake", prefix + mask)
    return paired


def _stem(name: str) -> str:
    return same_text(os.path.splitext(name)[0])
