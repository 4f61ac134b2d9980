"""A million dataset dicts in a few arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
from torch.utils.data import Dataset

from ddl_d2.io.rows import UNCOUNTED


class DatasetColumns(Dataset, Sequence):
    """A read-only sequence of dataset dicts, made when asked for from byte and offset arrays.

    It is also a map-style torch dataset. Workers that are forked share its memory; others each get a copy. A slice or
    `select` shares the arrays too.

    A row holds `file_name`, `image_id` (the file's path relative to `root`, with "/"), `is_fake` (0 or 1, absent if
    unknown), `mask_file_name` (absent if there is none) and `fully_forged` (True for a fake that stands without a mask
    file for a wholly forged image, else absent).

    Args:
        root: the folder that names and masks are relative to.
        arrays: as made by `from_lists`; use that.
    """

    kind = "images"
    """What the rows are, for people."""

    def __init__(self, root: str, arrays: dict[str, np.ndarray]) -> None:
        self.root = root
        self._arrays = arrays

    @classmethod
    def from_lists(
        cls,
        root: str,
        names: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        masks: Sequence[str],
        *,
        fully_forged: Sequence[bool] | np.ndarray | None = None,
    ) -> DatasetColumns:
        """Make columns of lists.

        Args:
            root: the folder that names and masks are relative to.
            names: of the images.
            labels: 0 real, 1 fake, -1 unknown, one per image.
            masks: mask files, "" for none, one per image.
            fully_forged: one per image; by default none is.

        Raises:
            ValueError: lists of unlike lengths.
        """
        name_bytes, name_ends = pack(names)
        mask_bytes, mask_ends = pack(masks)
        full = np.zeros(len(names), dtype=bool) if fully_forged is None else np.asarray(fully_forged, dtype=bool)
        arrays = {
            "names": name_bytes,
            "name_ends": name_ends,
            "masks": mask_bytes,
            "mask_ends": mask_ends,
            "labels": np.asarray(labels, dtype=np.int8),
            "full": full,
            "order": np.arange(len(names), dtype=np.int64),
        }
        if not len(names) == len(masks) == len(arrays["labels"]) == len(full):
            raise ValueError("names, labels, masks and fully_forged must be of one length")
        return cls(root, arrays)

    def __len__(self) -> int:
        return len(self._arrays["order"])

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> DatasetColumns: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | DatasetColumns:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self._row(int(self._arrays["order"][index]))

    def _row(self, position: int) -> dict[str, Any]:
        arrays = self._arrays
        name = unpack(arrays["names"], arrays["name_ends"], position)
        row: dict[str, Any] = {"file_name": os.path.join(self.root, name), "image_id": name}
        if arrays["labels"][position] >= 0:
            row["is_fake"] = int(arrays["labels"][position])
        mask = unpack(arrays["masks"], arrays["mask_ends"], position)
        if mask:
            row["mask_file_name"] = os.path.join(self.root, mask)
        if arrays["full"][position]:
            row["fully_forged"] = True
        return row

    def select(self, indices: Iterable[int] | np.ndarray) -> DatasetColumns:
        """Select the rows at `indices`, in that order."""
        chosen = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices), dtype=np.int64)
        return type(self)(self.root, {**self._arrays, "order": self._arrays["order"][chosen]})

    @property
    def labels(self) -> np.ndarray:
        """int8, N: 0 real, 1 fake, -1 unknown."""
        return self._arrays["labels"][self._files]

    @property
    def has_mask(self) -> np.ndarray:
        """bool, N: whether the row has a mask file."""
        ends = self._arrays["mask_ends"]
        return (np.diff(ends, prepend=0) > 0)[self._files]

    @property
    def _files(self) -> np.ndarray:
        """int, N: where each row's file stands in the columns."""
        return self._arrays["order"]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The columns, for storing; give them back to the constructor. Do not write to them."""
        return dict(self._arrays)

    def __repr__(self) -> str:
        labels = self.labels
        return (
            f"{type(self).__name__}({self.root}: {len(self)} {self.kind}, {int((labels == 0).sum())} real, "
            f"{int((labels == 1).sum())} fake)"
        )


class FrameColumns(DatasetColumns):
    """Frames of videos: rows that share the name, label and mask of a file, or images that share a video.

    A row holds, besides, `video_id`, `frame_index` (from 0) and `forgery_type` (absent if none was named). Where the
    file is a video, `image_id` is its path with the frame's number behind it: `videos/071.mp4/000012`.
    A video that cannot be read has one row, `frame_index` -1 and `image_id` `videos/071.mp4/unreadable`.
    """

    @classmethod
    def from_files(
        cls,
        files: DatasetColumns,
        *,
        file_of_row: Sequence[int] | np.ndarray,
        frame_of_row: Sequence[int] | np.ndarray,
        video_of_row: Sequence[int] | np.ndarray,
        video_ids: Sequence[str],
        forgery_types: Sequence[str],
    ) -> FrameColumns:
        """Make columns of the frames of files.

        Args:
            files: videos, or images of their frames, in their first order.
            file_of_row: position in `files`, one per frame.
            frame_of_row: number of the frame in its video, one per frame.
            video_of_row: position in `video_ids`, one per frame.
            video_ids: one per video.
            forgery_types: one per video; "" is none.
        """
        id_bytes, id_ends = pack(video_ids)
        type_bytes, type_ends = pack(forgery_types)
        arrays = {
            **files.arrays,
            "row_files": np.asarray(file_of_row, dtype=np.int32),
            "row_frames": np.asarray(frame_of_row, dtype=np.int32),
            "row_videos": np.asarray(video_of_row, dtype=np.int32),
            "videos": id_bytes,
            "video_ends": id_ends,
            "types": type_bytes,
            "type_ends": type_ends,
            "order": np.arange(len(file_of_row), dtype=np.int64),
        }
        return cls(files.root, arrays)

    @property
    def num_videos(self) -> int:
        """How many videos the rows come from."""
        return len(np.unique(self.videos))

    @property
    def videos(self) -> np.ndarray:
        """int, N: a number for the video of each row."""
        return self._arrays["row_videos"][self._arrays["order"]]

    @property
    def _files(self) -> np.ndarray:
        return self._arrays["row_files"][self._arrays["order"]]

    def _row(self, position: int) -> dict[str, Any]:
        arrays = self._arrays
        row = super()._row(int(arrays["row_files"][position]))
        video, frame = int(arrays["row_videos"][position]), int(arrays["row_frames"][position])
        row["video_id"] = unpack(arrays["videos"], arrays["video_ends"], video)
        row["frame_index"] = frame
        kind = unpack(arrays["types"], arrays["type_ends"], video)
        if kind:
            row["forgery_type"] = kind
        if row["image_id"] == row["video_id"]:  # the file is the video, not an image of it
            row["image_id"] += "/unreadable" if frame == UNCOUNTED else f"/{frame:06d}"
        return row


def pack(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lay texts one after the other: their bytes in UTF-8, and where each ends."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), dtype=np.int64)
    return np.frombuffer(bytearray(b"".join(encoded)), dtype=np.uint8), ends


def unpack(data: np.ndarray, ends: np.ndarray, position: int) -> str:
    """Give one of the texts that `pack` laid out."""
    start = int(ends[position - 1]) if position else 0
    return data[start : int(ends[position])].tobytes().decode()
