"""Making a whole set of real and forged images on disk, in DDL-I's layout.

    ROOT/{train,valid}/{real,fake}/000000.jpg     pairs: the same image, once left alone, once forged
    ROOT/{train,valid}/masks/000000.png           1 bit, white = forged
    ROOT/manifest.json                            settings, photographs, what the split means
    ROOT/manifest.jsonl                           one line per pair: everything that was done

Every pair is drawn from (seed, split, index) alone: the number of workers and interruptions change no byte.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.errors import ForgerySetError
from ddl_d2.faces.crop import crop_around
from ddl_d2.faces.face import Face, FaceFinder
from ddl_d2.forging.canvas import ComposeOptions, Photo, compose, draw_cells
from ddl_d2.forging.combine import CombineOptions, random_combination
from ddl_d2.forging.photos import PhotoFile, find_faces, split_photos
from ddl_d2.forging.self_blend import Forgery, NoSuitableFaceError, self_blend
from ddl_d2.io.atomic import write_json, write_whole
from ddl_d2.io.image import jpeg_bytes, read_image, write_png

SPLITS = ("train", "valid")
STYLES = ("canvas", "faces", "combination")
# Of a face's box, kept around it in the style "faces".
_FACE_MARGIN = (0.0, 0.35)
_ATTEMPTS = 20

#: Forgeries that a small network learns to see in minutes: stronger than the defaults, never nearly transparent, and
#: the appearance always changes in the target, so that the real image of a pair is the canvas itself.
TOY_OPTIONS = ForgeryOptions(
    whole_face_prob=0.4,
    part_count=(1, 2),
    ratios=(0.85, 0.9, 0.95, 1.0),
    erode_kernel=(3, 9),
    blur_kernel=(3, 11),
    appearance_weights=(0.0, 1.0, 0.0),
    rgb_shift_prob=0.5,
    rgb_shift=(-30.0, 30.0),
    hue=(-8.0, 8.0),
    saturation=(0.55, 1.5),
    brightness=(-0.12, 0.12),
    contrast=(-0.2, 0.25),
    frequency=("downscale", "sharpen", "blur"),
    noise_prob=0.25,
    jpeg_prob=0.25,
)
_NOTE_DISJOINT = "train and valid are made from different photographs."
_NOTE_SHARED = (
    "train and valid are made from the SAME photographs, seen through different crops, light and forgeries: a score on "
    "valid says how well the forging is recognized on these faces, not how a detector does on other people."
)


@dataclass(frozen=True)
class SetSettings:
    """What is made: `count` images (half real, half forged) of `size`×`size` pixels.

    Attributes:
        source: where the photographs are from, in words, for the manifest.
        style: what an image is. "canvas": square, of one or several faces, with forgeries a small network learns to
            see in minutes (`TOY_OPTIONS`). "faces": one photograph after the other cut to a face (shortest side at
            most `size`), forged as in training on self-blended images (`ForgeryOptions`). "combination": one whole
            photograph after the other (shortest side at most `size`) with faces of others in it (`CombineOptions`).
        valid_share: the share of images, and of photographs where there are four or more, kept for valid.
    """

    source: str
    count: int
    seed: int
    size: int = 256
    valid_share: float = 0.23
    style: str = "canvas"

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ForgerySetError(f"the style must be one of {', '.join(STYLES)}, not {self.style!r}")
        if self.count < 2:
            raise ForgerySetError(f"count must be at least 2 (one real, one forged), not {self.count}")
        if not 0 <= self.valid_share < 1:
            raise ForgerySetError(f"the valid share must be in [0, 1), not {self.valid_share}")
        if not 64 <= self.size <= 4096:
            raise ForgerySetError(f"the size must be from 64 to 4096 pixels, not {self.size}")
        if self.seed < 0:
            raise ForgerySetError(f"the seed must not be negative, not {self.seed}")

    def pairs(self) -> dict[str, int]:
        """Number of (real, fake) pairs of each split."""
        total = self.count // 2
        valid = round(total * self.valid_share)
        if self.valid_share > 0 and total > 1:
            valid = min(max(valid, 1), total - 1)
        return {"train": total - valid, "valid": valid}


@dataclass(frozen=True)
class _Job:
    root: Path
    split: str
    index: int
    settings: SetSettings
    photos: tuple[PhotoFile, ...]


def make_set(
    root: Path,
    photos: Sequence[PhotoFile],
    settings: SetSettings,
    *,
    finder: FaceFinder,
    workers: int = 1,
    existing: str = "refuse",
    progress: bool = True,
) -> dict[str, Any]:
    """Make the set below `root`.

    Args:
        photos: where to take real images from; those without a face are skipped and listed in the manifest.
        finder: finds their faces.
        workers: processes; 1 works in this one.
        existing: what to do if `root` holds something: "refuse", "resume" (a set with the same settings: make what
            is missing) or "overwrite" (a set made by this function: delete it first).

    Returns:
        The manifest.

    Raises:
        ForgerySetError: `root` may not be written, or no photograph has a face.
    """
    cv2.setNumThreads(1)  # processes share the machine, and must be forked without threads
    _check_root(root, settings, existing)
    pairs = settings.pairs()
    order = np.random.default_rng([settings.seed, len(SPLITS)]).permutation(len(photos))
    wanted = [photos[i] for i in order[: 2 * sum(pairs.values())]]
    usable, skipped = find_faces(wanted, finder)
    if not usable:
        raise ForgerySetError(f"none of the {len(wanted)} photographs has a face to forge")
    fewest = 2 if settings.style == "combination" else 1
    if len(usable) < fewest:
        raise ForgerySetError(
            f"a combination needs two photographs with a face, and only {usable[0].name} of {len(wanted)} has one"
        )
    groups, disjoint = split_photos(usable, settings.valid_share, fewest=fewest)
    manifest = _manifest(settings, groups, skipped, disjoint)
    if existing == "resume" and root.exists() and any(root.iterdir()):
        _check_same_photographs(root, manifest)
    done = _prepare_root(root, manifest, existing)
    jobs = [
        _Job(root, split, index, settings, tuple(groups[split]))
        for split in SPLITS
        for index in range(pairs[split])
        if (split, index) not in done
    ]
    with open(root / "manifest.jsonl", "a", encoding="utf-8") as lines:
        for row in tqdm(_run(jobs, workers), total=len(jobs), unit="pair", disable=None if progress else True):
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            done[row["split"], row["index"]] = row
    rows = sorted(done.values(), key=lambda row: (row["split"], row["index"]))
    write_whole(root / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    manifest["complete"] = True
    write_json(root / "manifest.json", manifest)
    return manifest


def make_pair(
    photos: Sequence[PhotoFile], settings: SetSettings, rng: np.random.Generator, *, index: int = 0
) -> tuple[dict[str, Any], Forgery]:
    """A forgery with its real partner, before they are compressed, and what is to be said of the image under them.

    Raises:
        ForgerySetError: no image with a face wide enough to forge came up.
    """
    for attempt in range(_ATTEMPTS):
        try:
            if settings.style == "faces":
                return _forge_photo(photos[(index + attempt) % len(photos)], settings, rng)
            if settings.style == "combination":
                return _combine_photos(photos, (index + attempt) % len(photos), settings, rng)
            return _forge_canvas(photos, settings, rng)
        except NoSuitableFaceError:
            continue  # every face fell out of its cell or is too narrow: draw again
    raise ForgerySetError(f"no face fit to forge in {_ATTEMPTS} images of {settings.size} pixels; use a larger size")


def _forge_canvas(
    photos: Sequence[PhotoFile], settings: SetSettings, rng: np.random.Generator
) -> tuple[dict[str, Any], Forgery]:
    options = ComposeOptions()
    cells = draw_cells(settings.size, rng, options)
    chosen = [photos[int(i)] for i in rng.integers(len(photos), size=len(cells))]
    canvas = compose([_load(photo) for photo in chosen], cells, rng, options)
    return canvas.record, self_blend(canvas.image, canvas.faces, rng, TOY_OPTIONS)


def _forge_photo(photo: PhotoFile, settings: SetSettings, rng: np.random.Generator) -> tuple[dict[str, Any], Forgery]:
    face = photo.faces[int(rng.integers(len(photo.faces)))]
    margins = rng.uniform(*_FACE_MARGIN, size=4)
    image, face = crop_around(_read(photo.path), face, margins=margins)
    image, (face,) = _fitted(image, [face], settings.size)
    record = {"photograph": photo.name, "margins": [round(float(m), 4) for m in margins]}
    return record, self_blend(image, [face], rng, ForgeryOptions())


def _combine_photos(
    photos: Sequence[PhotoFile], number: int, settings: SetSettings, rng: np.random.Generator
) -> tuple[dict[str, Any], Forgery]:
    photo, others = photos[number], [*photos[:number], *photos[number + 1 :]]
    drawn = rng.choice(len(others), size=min(len(others), CombineOptions().count[1]), replace=False)
    image, faces = _fitted(_read(photo.path), photo.faces, settings.size)
    host = Photo(photo.name, image, tuple(faces))
    return {"photograph": photo.name}, random_combination(host, [_load(others[i]) for i in drawn], rng)


def _fitted(image: np.ndarray, faces: Sequence[Face], size: int) -> tuple[np.ndarray, list[Face]]:
    """An image whose shortest side is at most `size`, and its faces."""
    scale = size / min(image.shape[:2])
    if scale >= 1:
        return image, list(faces)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    matrix = np.array([[width / image.shape[1], 0.0, 0.0], [0.0, height / image.shape[0], 0.0]])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small, [face.moved(matrix) for face in faces]


def _make(job: _Job) -> dict[str, Any]:
    """Make and write one pair; returns its line of the manifest."""
    settings = job.settings
    rng = np.random.default_rng([settings.seed, SPLITS.index(job.split), job.index])
    canvas_record, forgery = make_pair(job.photos, settings, rng, index=job.index)
    quality = int(rng.integers(75, 98))
    stem, folder = f"{job.index:06d}", job.root / job.split
    write_png(folder / "masks" / f"{stem}.png", forgery.mask)  # 1 bit: read back three to six times as fast as 8
    write_whole(folder / "real" / f"{stem}.jpg", jpeg_bytes(forgery.real, quality).tobytes())
    write_whole(folder / "fake" / f"{stem}.jpg", jpeg_bytes(forgery.image, quality).tobytes())
    return {
        "split": job.split,
        "index": job.index,
        "real": f"{job.split}/real/{stem}.jpg",
        "fake": f"{job.split}/fake/{stem}.jpg",
        "mask": f"{job.split}/masks/{stem}.png",
        "forged_share": round(float(forgery.mask.mean()), 5),
        "jpeg_quality": quality,
        **canvas_record,
        **forgery.record,
    }


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[dict[str, Any]]:
    if workers <= 1 or len(jobs) < 2:
        yield from map(_make, jobs)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))
    try:
        yield from pool.map(_make, jobs, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=32)
def _read(path: Path) -> np.ndarray:
    return read_image(path)


def _load(photo: PhotoFile) -> Photo:
    return Photo(photo.name, _read(photo.path), photo.faces)


def _manifest(
    settings: SetSettings, groups: dict[str, list[PhotoFile]], skipped: dict[str, str], disjoint: bool
) -> dict[str, Any]:
    pairs = settings.pairs()
    return {
        "made_by": "tools/make_forgeries.py",
        "complete": False,
        "settings": asdict(settings),
        "images": {split: {"real": pairs[split], "fake": pairs[split]} for split in SPLITS},
        "note": _NOTE_DISJOINT if disjoint else _NOTE_SHARED,
        "photographs": {split: sorted(photo.name for photo in group) for split, group in groups.items()},
        "skipped": dict(sorted(skipped.items())),
    }


def _check_root(root: Path, settings: SetSettings, existing: str) -> None:
    if existing not in ("refuse", "resume", "overwrite"):
        raise ValueError(f"existing must be refuse, resume or overwrite, not {existing!r}")
    if root.exists() and not root.is_dir():
        raise ForgerySetError(f"{root} is a file, not a folder")
    if not root.exists() or not any(root.iterdir()):
        return
    if existing == "refuse":
        raise ForgerySetError(f"{root} is not empty; use --resume to complete it or --overwrite to make it anew")
    old = _read_manifest(root)
    if existing == "resume" and old["settings"] != asdict(settings):
        raise ForgerySetError(
            f"{root} was made with other settings ({old['settings']}); use --overwrite or another folder"
        )


def _check_same_photographs(root: Path, manifest: dict[str, Any]) -> None:
    if _read_manifest(root).get("photographs") != manifest["photographs"]:
        raise ForgerySetError(f"{root} was made from other photographs; use --overwrite or another folder")


def _read_manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        if manifest["made_by"] == "tools/make_forgeries.py" and "settings" in manifest:
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ForgerySetError(f"{root} is not empty and has no manifest.json of a forged set: left alone") from error
    raise ForgerySetError(f"{root} is not empty and holds something else than a forged set: left alone")


def _prepare_root(root: Path, manifest: dict[str, Any], existing: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Empty `root` if it is to be overwritten, start the manifest, and return the lines of what is already there."""
    if existing == "overwrite":
        for split in SPLITS:
            shutil.rmtree(root / split, ignore_errors=True)
    done = _finished(root) if existing == "resume" else {}
    write_json(root / "manifest.json", manifest)  # first: it marks the folder as ours
    write_whole(root / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in done.values()))
    for split in SPLITS:
        for kind in ("real", "fake", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
    return done


def _finished(root: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The lines of manifest.jsonl whose three files are there; a line cut off by an interruption is dropped."""
    done = {}
    path = root / "manifest.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
            if all((root / row[key]).is_file() for key in ("real", "fake", "mask")):
                done[str(row["split"]), int(row["index"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return done
