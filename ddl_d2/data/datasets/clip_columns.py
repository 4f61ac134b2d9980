"""Clips of audio-visual datasets in a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ddl_d2.data.datasets.columns import DatasetColumns, pack, unpack

Segments = tuple[tuple[float, float], ...]

UNKNOWN_FRAMES = 0
_KINDS = ("segments", "video_segments", "audio_segments")


class ClipEntry(NamedTuple):
    """A clip of a dataset.

    Attributes:
        name: its file, relative to the root.
        label: 0 real, 1 fake, -1 unknown.
        segments: what is forged in picture or sound, [s, e] in seconds; None if unknown.
        video_segments: what is forged in the picture; None if unknown.
        audio_segments: what is forged in the sound; None if unknown.
        num_frames: of the picture; 0 if unknown.
    """

    name: str
    label: int
    segments: Segments | None = None
    video_segments: Segments | None = None
    audio_segments: Segments | None = None
    num_frames: int = UNKNOWN_FRAMES

    @property
    def forgery_type(self) -> str:
        """What is forged: "visual_modified", "audio_modified" or "both_modified"; "" if nothing or unknown."""
        kinds = [bool(self.video_segments), bool(self.audio_segments)]
        names = {(True, True): "both_modified", (True, False): "visual_modified", (False, True): "audio_modified"}
        return names.get((kinds[0], kinds[1]), "")


class ClipColumns(DatasetColumns):
    """Rows of clips, packed as `DatasetColumns` are.

    A row holds `file_name`, `image_id` and `video_id` (the clip's path relative to the root), `is_fake`, `segments`,
    `video_segments` and `audio_segments` (lists of [s, e] in seconds; absent if unknown), `num_frames` (absent if
    unknown) and `forgery_type` (absent for real clips).
    """

    kind = "clips"

    @classmethod
    def from_entries(cls, root: str, entries: Sequence[ClipEntry]) -> ClipColumns:
        """Make columns of entries, whose names are relative to `root`."""
        names = [entry.name for entry in entries]
        files = DatasetColumns.from_lists(root, names, [entry.label for entry in entries], [""] * len(names))
        types, type_ends = pack([entry.forgery_type for entry in entries])
        arrays = {**files.arrays, "clip_types": types, "clip_type_ends": type_ends}
        arrays["clip_frames"] = np.array([entry.num_frames for entry in entries], dtype=np.int32)
        for kind in _KINDS:
            lists: list[Segments | None] = [getattr(entry, kind) for entry in entries]
            arrays[f"{kind}_known"] = np.array([found is not None for found in lists], dtype=bool)
            arrays[f"{kind}_ends"] = np.cumsum([len(found or ()) for found in lists], dtype=np.int64)
            flat = [segment for found in lists for segment in found or ()]
            arrays[kind] = np.array(flat, dtype=np.float64).reshape(-1, 2)
        return cls(root, arrays)

    def _row(self, position: int) -> dict[str, Any]:
        arrays = self._arrays
        row = super()._row(position)
        row["video_id"] = row["image_id"]
        for kind in _KINDS:
            if arrays[f"{kind}_known"][position]:
                ends = arrays[f"{kind}_ends"]
                start = int(ends[position - 1]) if position else 0
                row[kind] = arrays[kind][start : int(ends[position])].tolist()
        if arrays["clip_frames"][position] != UNKNOWN_FRAMES:
            row["num_frames"] = int(arrays["clip_frames"][position])
        kind = unpack(arrays["clip_types"], arrays["clip_type_ends"], position)
        if kind:
            row["forgery_type"] = kind
        return row
