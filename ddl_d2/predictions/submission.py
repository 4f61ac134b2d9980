"""The DDL challenge's submission file (image track), written from a prediction store and read back for checking.

    prediction.txt     one line per image: <file name>,<probability of fake with 4 digits>, e.g. 000001.png,0.9931
    mask/<stem>.png    8-bit gray, 255 forged and 0 authentic, the image's original size; every image has one

Source: the challenge site's rules, summarized in docs/metrics.md.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddl_d2.errors import ImageReadError, SubmissionError
from ddl_d2.io.atomic import replacing
from ddl_d2.io.image import read_map
from ddl_d2.predictions.layout import check_image_id
from ddl_d2.predictions.maps import binarize_map
from ddl_d2.predictions.store import PredictionStore

_LIST, _MASKS = "prediction.txt", "mask"
_MAX_MEMBER_BYTES = 256 << 20  # a bomb is refused before it is unpacked
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # equal predictions give equal bytes


def export_submission(store: PredictionStore, path: str | os.PathLike[str], *, threshold: float = 0.5) -> int:
    """Write a store's predictions as a submission.

    Args:
        store: predictions with forgery maps.
        path: the zip file; it is replaced only once the new one is whole. Images are streamed one by one.
        threshold: a pixel is forged above it (`predictions.maps.binarize_map`).

    Returns:
        The number of images.

    Raises:
        SubmissionError: the store is empty, has no maps, or holds two images whose names differ only in folder or
            suffix, or a name with a comma.
        StoreError: a map cannot be read.
        OSError: the file cannot be written.
    """
    if not len(store) or not store.has_maps:
        raise SubmissionError(f"{store.root}: a submission needs a mask for every image, and the store has none")
    names = _file_names(store.ids)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        lines = [f"{name},{score:.4f}\n" for name, score in zip(names, store.scores, strict=True)]
        add_member(archive, _LIST, "".join(lines).encode("utf-8"), zipfile.ZIP_DEFLATED)
        for image_id, name in zip(store.ids, names, strict=True):
            mask = binarize_map(store.read_map(image_id), threshold)
            # PNG is compressed already.
            add_member(archive, _mask_member(name), _png_bytes(mask), zipfile.ZIP_STORED)
    return len(names)


@dataclass(frozen=True)
class Submission:
    """A submission file that has been read.

    Attributes:
        path: the zip file.
        scores: P(fake) in [0, 1] by file name, in the order of the file's lines.
    """

    path: Path
    scores: Mapping[str, float]

    def read_mask(self, name: str) -> NDArray[np.bool_]:
        """Return the mask of one image, bool H x W.

        Raises:
            SubmissionError: the mask is missing, cannot be read or holds values other than 0 and 255.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = read_member(archive, _mask_member(name))
        except (OSError, zipfile.BadZipFile) as error:
            raise SubmissionError(f"{self.path} cannot be read: {error}") from error
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mask.png"
            file.write_bytes(data)
            try:
                values = read_map(file)
            except ImageReadError as error:
                raise SubmissionError(f"{self.path}: the mask of {name} cannot be read: {error.reason}") from error
        if not np.isin(values, (0, 255)).all():
            raise SubmissionError(f"{self.path}: the mask of {name} holds values other than 0 and 255")
        return values == 255


def read_submission(path: str | os.PathLike[str]) -> Submission:
    """Read a submission's list and check that lines and masks belong together. Raises SubmissionError."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            text = read_member(archive, _LIST).decode("utf-8")
            members = archive.namelist()
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise SubmissionError(f"{path} cannot be read: {error}") from error
    scores: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, comma, score_text = line.rpartition(",")
        try:
            score = float(score_text)
        except ValueError:
            score = -1.0
        if not comma or not name or not 0 <= score <= 1:
            raise SubmissionError(f"{path}: {_LIST} line {number} is not <file name>,<number in [0, 1]>: {line[:80]!r}")
        if name in scores:
            raise SubmissionError(f"{path}: {_LIST} line {number} repeats {name}")
        scores[name] = score
    expected = {_LIST, *(_mask_member(name) for name in _file_names(list(scores)))}
    if difference := sorted(expected.symmetric_difference(name for name in members if not name.endswith("/"))):
        state = "missing" if difference[0] in expected else "unexpected"
        raise SubmissionError(f"{path}: {len(difference)} members do not fit {_LIST}; {difference[0]} is {state}")
    return Submission(path, scores)


def validate_submission(path: str | os.PathLike[str], sizes: Mapping[str, tuple[int, int]]) -> Submission:
    """Check a submission against the images it is for; return it.

    Args:
        path: the zip file.
        sizes: (height, width) in pixels of each image by file name.

    Raises:
        SubmissionError: not exactly these images have a line and a mask of their size, of 0 and 255 only.
    """
    submission = read_submission(path)
    if difference := sorted(set(sizes).symmetric_difference(submission.scores)):
        state = "missing" if difference[0] in sizes else "unexpected"
        raise SubmissionError(f"{path}: {len(difference)} images differ from the list; {difference[0]} is {state}")
    for name, size in sizes.items():
        if (found := submission.read_mask(name).shape) != tuple(size):
            raise SubmissionError(f"{path}: the mask of {name} is {found}, the image {tuple(size)}")
    return submission


def _file_names(image_ids: list[str]) -> list[str]:
    """Return file names without folders. Raises SubmissionError if two would share a line or a mask."""
    owners: dict[str, str] = {}
    names = []
    for image_id in image_ids:
        name = PurePosixPath(check_image_id(image_id)).name
        if "," in name:
            raise SubmissionError(f"{image_id}: a comma in the file name would break {_LIST}")
        member = _mask_member(name)
        if member in owners:
            raise SubmissionError(f"{owners[member]} and {image_id} would share {member}: file names must be unique")
        owners[member] = image_id
        names.append(name)
    return names


def _mask_member(name: str) -> str:
    return f"{_MASKS}/{PurePosixPath(name).stem}.png"


def _png_bytes(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
    return buffer.getvalue()


def add_member(archive: zipfile.ZipFile, member: str, data: bytes, compression: int) -> None:
    """Put a file into an archive, with a fixed time."""
    info = zipfile.ZipInfo(member, _FIXED_TIME)
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, compress_type=compression)


def read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """Return a file of an archive. Raises SubmissionError if it is missing or too large."""
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise SubmissionError(f"{archive.filename}: {member} is missing") from None
    if info.file_size > _MAX_MEMBER_BYTES:
        raise SubmissionError(f"{archive.filename}: {member} would unpack to {info.file_size} bytes")
    return archive.read(info)
