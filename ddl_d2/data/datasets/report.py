"""The report of everything odd about a dataset; what makes a dataset unusable is a DatasetError."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from ddl_d2.utils.text import printable

# kind -> (what it means, what to do). Kinds in NOTES are worth knowing but no fault.
KINDS = {
    "fake_without_mask": (
        "fake images without a mask file",
        'add the masks, or choose DATASETS.FAKE_WITHOUT_MASK: "skip", "full", "score" or "error"',
    ),
    "ambiguous_mask": (
        "fake images whose stem is another fake's too, or fits several masks; taken as without mask",
        "give each mask the full name of its image, or remove the duplicates",
    ),
    "mask_without_fake": ("mask files that belong to no fake image", "remove them, or add the images"),
    "unreadable_name": (
        "file names that are not valid UTF-8 or hold control characters; not used",
        "rename the files",
    ),
    "other_file": ("files of other kinds; not used", "nothing, if they are not images"),
    "unread_format": (
        "images of formats that are not read; kept, and fail when they are read",
        "save them as JPEG or PNG",
    ),
    "unopened_file": (
        "files that cannot be opened to see what they are; not used",
        "allow to read them, or remove them",
    ),
    "not_a_file": ("pipes, sockets, devices or broken links with an image's name; not used", "remove them"),
    "link_outside": (
        "links that lead out of the dataset's root; not followed",
        "copy the files in, or move the root up",
    ),
    "outside_root": (
        "paths in the list that lead out of its root; not read",
        "put the list into the folder that holds the images, and write paths relative to it",
    ),
    "missing_file": ("paths in the list without a file", "correct the list, or add the files"),
    "bad_line": ("lines or entries that cannot be understood; not used", "correct them: see datasets/README.md"),
    "duplicate_entry": ("images listed more than once; the first entry counts", "remove the repetitions"),
    "conflicting_label": ("images listed with both labels; not used", "correct the labels"),
    "unreadable_video": (
        "videos that cannot be read; kept as one row each, which fails when it is read",
        "replace or remove them",
    ),
    "without_frames": ("folders of frames without an image; not used", "extract the frames, or remove the folders"),
    "without_label": ("images without a label in labels.txt; kept without one", "add them to labels.txt"),
    "label_without_image": ("lines of labels.txt without an image", "remove them, or add the images"),
    # Found by decoding (ddl-d2 check-dataset --deep).
    "unreadable_image": ("images that cannot be decoded", "replace or remove them"),
    "unreadable_mask": ("masks that cannot be decoded", "replace or remove them"),
    "segment_outside": ("clips with a forged segment that ends behind their end", "correct the labels"),
    "mask_size": (
        "masks of another size than their image, but of its shape; resized when used",
        "save them at the image's size",
    ),
    "mask_shape": (
        "masks of another shape than their image; refused when used",
        "make them anew, or remove the images",
    ),
    "mask_orientation": (
        "masks of images that are turned by EXIF (or a display matrix), which may be turned like them or not; refused "
        "when used",
        "save the images upright, or give the masks their images' EXIF orientation",
    ),
    "empty_mask": ("fake images whose mask shows nothing forged", "correct the masks, or move the images to real/"),
    "mask_in_alpha": (
        "masks of one gray value everywhere, whose alpha channel, which is dropped, is not: the mask seems to be in it",
        "save the alpha channel as a gray image",
    ),
    "reader_died": ("places where an image or mask killed the reading process", "find and remove that file"),
    "mask_turned": (
        "masks in the stored orientation of an image that is turned by EXIF (or a display matrix); turned with it",
        "nothing",
    ),
    "mask_full": ("masks that are forged everywhere", "nothing, if these images are synthesized as a whole"),
    "mask_coded_01": ("masks coded 0 and 1; read as 0 and 255", "nothing"),
    "mask_soft": ("masks with gray values; 128 and above is forged", "nothing, if that is meant"),
    "mask_color": ("masks in color; the largest channel counts", "nothing, if that is meant"),
    "mask_alpha": ("masks with an alpha channel; it is dropped", "nothing, if the mask is not in the alpha channel"),
}
NOTES = frozenset({"other_file", "mask_turned", "mask_full", "mask_coded_01", "mask_soft", "mask_color", "mask_alpha"})
MAX_EXAMPLES = 5


class DatasetReport:
    """Counts of everything odd about a dataset, with a few examples of each (paths relative to the root).

    Attributes:
        counts: kind of `KINDS` -> how many.
        examples: kind -> a few of them.
        index: the file that the dataset was read from instead of being listed; None if it was listed.
    """

    def __init__(self) -> None:
        self.index: Path | None = None
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    @property
    def origin(self) -> str:
        """Say that the dataset was not listed anew, and how to have it listed; "" if it was."""
        return f"from the index, drop it with: rm {shlex.quote(str(self.index))}" if self.index else ""

    def add(self, kind: str, example: str) -> None:
        """Count one finding of a kind of `KINDS`."""
        self.counts[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < MAX_EXAMPLES:
            kept.append(printable(example))

    @property
    def problems(self) -> dict[str, int]:
        """The counts that are faults."""
        return {kind: count for kind, count in sorted(self.counts.items()) if kind not in NOTES}

    def lines(self) -> list[str]:
        """Say of each kind found, in one line, how many, what, examples, and what to do."""
        lines = []
        for kind, count in sorted(self.counts.items()):
            what, remedy = KINDS[kind]
            shown = ", ".join(self.examples.get(kind, []))
            lines.append(f"{count} {what} (e.g. {shown}). To do: {remedy}.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"counts": dict(self.counts), "examples": self.examples}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DatasetReport:
        """Make a report of what `to_dict` gave."""
        report = cls()
        report.counts.update({str(kind): int(count) for kind, count in values["counts"].items()})
        report.examples = {str(kind): [str(x) for x in shown] for kind, shown in values["examples"].items()}
        return report
