"""The real photographs that a forged dataset starts from: listing them, and finding their faces."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ddl_d2.errors import ForgeryError, ImageReadError
from ddl_d2.faces.face import Face, FaceFinder
from ddl_d2.io.file_kinds import file_kind, passed_over_note
from ddl_d2.io.file_names import is_image, says_nothing
from ddl_d2.io.image import read_image
from ddl_d2.utils.limits import MAX_PIXELS

logger = logging.getLogger(__name__)

# Portraits that come inside packages ddl_d2 needs anyway: (name, package, path in it).
_BUILTIN = (
    ("astronaut", "skimage", "data/astronaut.png"),
    ("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


@dataclass(frozen=True)
class PhotoFile:
    """A photograph on disk.

    Attributes:
        name: for records.
        path: of the file.
        faces: once looked for.
        max_pixels: the most pixels it may have.
    """

    name: str
    path: Path
    faces: tuple[Face, ...] = ()
    max_pixels: int = MAX_PIXELS

    def read(self) -> np.ndarray:
        """Decode the photograph: uint8 H×W×3 RGB. Raises ImageReadError."""
        return read_image(self.path, max_pixels=self.max_pixels)


def builtin_photos() -> list[PhotoFile]:
    """Locate two portraits in the public domain that scikit-image and matplotlib carry (NASA; US Navy).

    Raises:
        ForgeryError: an installed package came without its image.
    """
    photos = []
    for name, package, inside in _BUILTIN:
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        path = Path(places[0]) / inside if places else Path(inside)
        if not path.is_file():
            raise ForgeryError(f"{package} is not installed with its image {inside}; give --real-dir instead")
        photos.append(PhotoFile(name, path))
    return photos


def folder_photos(folder: Path, *, max_pixels: int = MAX_PIXELS) -> list[PhotoFile]:
    """List the images below `folder`, as `list_photos` does, and log what is passed over."""
    photos, others = list_photos(folder, max_pixels=max_pixels)
    if note := passed_over_note(others, wanted="no images"):
        logger.warning("%s: %s", folder, note)
    return photos


def list_photos(folder: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[list[PhotoFile], list[Path]]:
    """List the images below a folder, told by their names, or by their content where those say nothing.

    Args:
        folder: searched to the bottom.
        max_pixels: the most pixels a photograph may have when it is read.

    Returns:
        The images sorted by path, their names being paths relative to the folder; and the other files. Hidden files
        are in neither.

    Raises:
        ForgeryError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ForgeryError(f"{folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.name[0] != "." and path.is_file())
    kinds = {path: file_kind(path) if says_nothing(path) or is_image(path) else "other" for path in files}
    photos = [path for path, kind in kinds.items() if kind == "image"]
    if not photos:
        raise ForgeryError(f"no image in {folder} ({len(files)} files of other kinds)")
    others = [path for path, kind in kinds.items() if kind != "image"]
    names = [path.relative_to(folder).as_posix() for path in photos]
    return [PhotoFile(name, path, max_pixels=max_pixels) for name, path in zip(names, photos, strict=True)], others


def find_faces(
    photos: Iterable[PhotoFile], finder: FaceFinder, *, min_width: float = 40.0
) -> tuple[list[PhotoFile], dict[str, str]]:
    """Look for the faces of each photograph.

    Args:
        photos: on disk.
        finder: finds their faces.
        min_width: narrower faces (pixels between the ends of the jaw line) are dropped.

    Returns:
        The photographs with at least one face, and name -> reason for the others.
    """
    found, skipped = [], {}
    for photo in photos:
        try:
            faces = finder(photo.read())
        except ImageReadError as error:
            skipped[photo.name] = f"unreadable: {error.reason}"
            continue
        wide = tuple(face for face in faces if face.width >= min_width)
        if wide:
            found.append(replace(photo, faces=wide))
        else:
            skipped[photo.name] = f"no face at least {min_width:g} pixels wide"
    return found, skipped


def split_photos(
    photos: Sequence[PhotoFile], valid_share: float, *, fewest: int = 1
) -> tuple[dict[str, list[PhotoFile]], bool]:
    """Divide photographs between train and valid.

    Args:
        photos: in the order in which they are divided.
        valid_share: kept for valid, in [0, 1).
        fewest: how many each split needs, 1 or 2.

    Returns:
        {"train": [...], "valid": [...]}, and whether the two are disjoint: with fewer than four photographs both
        splits must use all of them.
    """
    if len(photos) < 4 or valid_share == 0:
        return {"train": list(photos), "valid": list(photos)}, valid_share == 0
    held_out = min(max(fewest, round(len(photos) * valid_share)), len(photos) - fewest)
    return {"train": list(photos[held_out:]), "valid": list(photos[:held_out])}, True
