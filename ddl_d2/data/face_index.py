"""Face crops as rows of a dataset: an index of the windows of every image, and whether each shows forged pixels.

Classes can only be balanced over what the network sees, and a face crop of a fake may be authentic; so each crop is a
row with a label of its own, and which crops there are is looked up once (`ddl-d2 index-faces`). An index is one CSV
file a dataset, `<dataset>.csv`, its lines in the dataset's order, an image's from left to right:

    # {"rule": "landmarks", ...}                   what the windows were made by
    image_id,x0,y0,x1,y1,has_face,is_fake
    fake/a.png,20,31,180,212,1,1
    fake/a.png,260,40,402,215,1,0

A window is (x0, y0, x1, y1) in whole pixels of the image, x1 and y1 just outside. `is_fake` is empty where the label of
the image is not known; `has_face` is 0 where no face was found and the window is the whole image. An image that could
not be read has one line, with the window 0,0,0,0: it is read, and counted as bad, when it is drawn.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import DatasetError, ImageReadError
from ddl_d2.faces.crop import FaceCropper, Window, cut
from ddl_d2.faces.listed import FaceList
from ddl_d2.io.atomic import replacing
from ddl_d2.io.rows import read_row_image, read_row_size

_HEADER = ["image_id", "x0", "y0", "x1", "y1", "has_face", "is_fake"]
_UNREADABLE = (0, 0, 0, 0)


class IndexedFace(NamedTuple):
    """One window of an image.

    Attributes:
        window: (x0, y0, x1, y1).
        has_face: whether a face was found in it.
        label: 1 fake, 0 real, -1 unknown.
    """

    window: Window
    has_face: bool
    label: int


class FaceIndex:
    """The windows of a dataset's images.

    Attributes:
        first: int64 N + 1, where the windows of each of N images begin.
        windows: int32 M×4.
        has_face: bool M.
        labels: int8 M; see `IndexedFace`.
    """

    def __init__(self, first: np.ndarray, windows: np.ndarray, has_face: np.ndarray, labels: np.ndarray) -> None:
        self.first, self.windows, self.has_face, self.labels = first, windows, has_face, labels

    def __len__(self) -> int:
        return len(self.labels)

    def window(self, face: int) -> Window | None:
        """Return the window of a face, by its number in the index; None for an image that could not be read."""
        x0, y0, x1, y1 = map(int, self.windows[face])
        return None if (x0, y0, x1, y1) == _UNREADABLE else (x0, y0, x1, y1)


def faces_of_row(
    row: Mapping[str, Any], cropper: FaceCropper, *, listed: FaceList | None = None, max_pixels: int
) -> list[IndexedFace]:
    """Find the windows of an image, and label each by the pixels in it.

    Args:
        row: dataset dict.
        cropper: of "all" faces.
        listed: faces found elsewhere, instead of the cropper's finder; the image is then not decoded.
        max_pixels: the most pixels an image may have.

    Returns:
        at least one.
    """
    label = int(row.get("is_fake", -1))
    try:
        if listed is None:
            image = read_row_image(row, max_pixels=max_pixels)
            shape, found = (image.shape[0], image.shape[1]), cropper(image)
        else:
            shape = read_row_size(row, max_pixels=max_pixels)
            found = cropper.windows(listed.faces(row["image_id"], row["file_name"]), shape)
        truth = read_forgery_mask(row, *shape, max_pixels=max_pixels) if label == 1 else None
    except ImageReadError:
        return [IndexedFace(_UNREADABLE, False, label)]
    if truth is not None and not truth.mask.any():
        return [IndexedFace(_UNREADABLE, False, label)]  # a fake whose mask shows nothing is refused when it is read
    labels = [label if truth is None else int(cut(truth.mask, one.window).any()) for one in found]
    return [IndexedFace(one.window, one.face is not None, its) for one, its in zip(found, labels, strict=True)]


def write_index(
    path: str | os.PathLike[str], made_by: Mapping[str, Any], faces: Iterator[tuple[str, list[IndexedFace]]]
) -> None:
    """Write an index, whole or not at all.

    Args:
        path: of the CSV file.
        made_by: what its windows depend on; plain values.
        faces: (image_id, windows) of every row, in order.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(f"# {json.dumps(dict(made_by), sort_keys=True)}\n")
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_HEADER)
        for image_id, found in faces:
            for window, has_face, label in found:
                lines.writerow([image_id, *window, int(has_face), label if label >= 0 else ""])


def read_index(
    path: str | os.PathLike[str], made_by: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> FaceIndex:
    """Read the index of a dataset.

    Args:
        path: of the CSV file.
        made_by: what the windows should have been made by.
        rows: of the dataset.

    Raises:
        DatasetError: there is no such file, or it is damaged, of other images, or made by something else.
    """
    again = "make it anew with `ddl-d2 index-faces`"
    if not os.path.isfile(path):
        raise DatasetError(f"{path}: there is no such index of faces (INPUT.FACE_CROP.INDEX); {again}")
    counts, values = array("q"), array("i")
    current = None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            told = json.loads(file.readline().removeprefix("#"))
            lines = csv.reader(file)
            if next(lines) != _HEADER:
                raise ValueError("its header is another")
            for image_id, x0, y0, x1, y1, has_face, label in lines:
                if image_id != current:
                    number, current = len(counts), image_id
                    if number >= len(rows) or rows[number]["image_id"] != image_id:
                        raise ValueError(f"{image_id} is not image {number + 1} of the dataset")
                    counts.append(0)
                counts[-1] += 1
                values.extend((int(x0), int(y0), int(x1), int(y1), int(has_face), int(label or -1)))
    except (ValueError, StopIteration) as error:
        raise DatasetError(f"{path}: is no index of this dataset's faces ({error}); {again}") from error
    if told != dict(made_by):
        raise DatasetError(f"{path}: its windows were made by {told}, and this config says {dict(made_by)}; {again}")
    if len(counts) != len(rows):
        raise DatasetError(f"{path}: has {len(counts)} images, the dataset {len(rows)}; {again}")
    table = np.array(values, dtype=np.int32).reshape(-1, len(_HEADER) - 1)
    first = np.concatenate([[0], np.cumsum(counts)])
    return FaceIndex(first, table[:, :4].copy(), table[:, 4] == 1, table[:, 5].astype(np.int8))


class FaceRows(Dataset):
    """Training rows: each window of each image is one.

    A row is the image's, with `window` (absent for an image that could not be read), its own `is_fake`, and an
    `image_id` that ends in "#" and the window's number.

    Args:
        rows: of the images.
        index: of their windows.

    Attributes:
        labels: int8, of every row: 0 real, 1 fake, -1 unknown.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], index: FaceIndex) -> None:
        self.rows, self.index, self.labels = rows, index, index.labels

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, face: int) -> dict[str, Any]:
        if not 0 <= face < len(self):
            raise IndexError(face)
        image = int(np.searchsorted(self.index.first, face, side="right")) - 1
        row = dict(self.rows[image])
        row["image_id"] = f"{row['image_id']}#{face - int(self.index.first[image])}"
        if self.labels[face] >= 0:
            row["is_fake"] = int(self.labels[face])
        window = self.index.window(face)
        return row if window is None else row | {"window": window}


class RowsWithWindows(Dataset):
    """Testing rows: those of the images, each with all its `windows` and `has_face`, whether any was found.

    An image that could not be read has neither.

    Args:
        rows: of the images.
        index: of their windows.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], index: FaceIndex) -> None:
        self.rows, self.index = rows, index

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, image: int) -> dict[str, Any]:
        row, faces = dict(self.rows[image]), range(*self.index.first[image : image + 2].tolist())
        windows = [window for face in faces if (window := self.index.window(face)) is not None]
        if windows:
            row |= {"windows": windows, "has_face": any(self.index.has_face[face] for face in faces)}
        return row
