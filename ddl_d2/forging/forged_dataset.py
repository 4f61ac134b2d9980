"""Making a whole dataset of real and forged images on disk, in DDL-I's layout.

    ROOT/{train,valid}/{real,fake}/000000.jpg     pairs: the same image, once left alone, once forged
    ROOT/{train,valid}/masks/000000.png           1 bit, white = forged
    ROOT/manifest.json                            settings, photographs, what the split means
    ROOT/manifest.jsonl                           one line per pair: everything that was done

Every pair is drawn from (seed, split, index) alone: the number of workers and interruptions change no byte.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ddl_d2.errors import ForgeryError
from ddl_d2.faces.face import FaceFinder
from ddl_d2.forging.forged_folder import MADE_BY, SPLITS, check_folder, prepare_folder, write_rows
from ddl_d2.forging.forged_pairs import STYLES, make_pair
from ddl_d2.forging.photos import PhotoFile, find_faces, split_photos
from ddl_d2.io.atomic import write_json, write_whole
from ddl_d2.io.image import jpeg_bytes, write_png

_NOTE_DISJOINT = "train and valid are made from different photographs."
_NOTE_SHARED = (
    "train and valid are made from the SAME photographs, seen through different crops, light and forgeries: a score on "
    "valid says how well the forging is recognized on these faces, not how a detector does on other people."
)


@dataclass(frozen=True)
class ForgedDatasetSettings:
    """What a forged dataset is to be.

    Attributes:
        source: where the photographs are from, in words, for the manifest.
        count: images in all, half real, half forged.
        seed: of all that is drawn.
        size: a canvas' side, or the most that the shortest side of other images may be, pixels.
        valid_share: the share of images, and of photographs where there are four or more, kept for valid.
        style: what an image is, one of `STYLES`; see `make_pair`.
        min_face_width: narrower faces of the photographs are not used, pixels between the ends of the jaw line.

    Raises:
        ForgeryError: a value out of its limits.
    """

    source: str
    count: int
    seed: int
    size: int = 256
    valid_share: float = 0.23
    style: str = "canvas"
    min_face_width: float = 40.0

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ForgeryError(f"the style must be one of {', '.join(STYLES)}, not {self.style!r}")
        if self.count < 2:
            raise ForgeryError(f"count must be at least 2 (one real, one forged), not {self.count}")
        if not 0 <= self.valid_share < 1:
            raise ForgeryError(f"the valid share must be in [0, 1), not {self.valid_share}")
        if not 64 <= self.size <= 4096:
            raise ForgeryError(f"the size must be from 64 to 4096 pixels, not {self.size}")
        if self.min_face_width < 1:
            raise ForgeryError(f"the smallest face must be at least 1 pixel wide, not {self.min_face_width:g}")
        if self.seed < 0:
            raise ForgeryError(f"the seed must not be negative, not {self.seed}")

    def pairs(self) -> dict[str, int]:
        """Count the (real, fake) pairs of each split."""
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
    settings: ForgedDatasetSettings
    photos: tuple[PhotoFile, ...]


def make_forged_dataset(
    root: Path,
    photos: Sequence[PhotoFile],
    settings: ForgedDatasetSettings,
    *,
    finder: FaceFinder,
    workers: int = 1,
    existing: str = "refuse",
    progress: bool = True,
) -> dict[str, Any]:
    """Make a forged dataset.

    Args:
        root: its folder.
        photos: where to take real images from; those without a face are skipped and listed in the manifest.
        settings: what to make.
        finder: finds their faces.
        workers: processes; 1 works in this one.
        existing: what to do if `root` holds something: "refuse", "resume" (a dataset with the same settings: make
            what is missing) or "overwrite" (a dataset made by this function: delete it first).
        progress: whether to show a progress bar.

    Returns:
        The manifest.

    Raises:
        ForgeryError: `root` may not be written, or no photograph has a face.
    """
    cv2.setNumThreads(1)  # processes share the machine, and must be forked without threads
    check_folder(root, asdict(settings), existing)
    groups, disjoint, skipped = _photographs(photos, settings, finder)
    manifest = _manifest(settings, groups, skipped, disjoint)
    done = prepare_folder(root, manifest, existing)
    jobs = [
        _Job(root, split, index, settings, tuple(groups[split]))
        for split, pairs in settings.pairs().items()
        for index in range(pairs)
        if (split, index) not in done
    ]
    with open(root / "manifest.jsonl", "a", encoding="utf-8") as lines:
        for row in tqdm(_run(jobs, workers), total=len(jobs), unit="pair", disable=None if progress else True):
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            done[row["split"], row["index"]] = row
    write_rows(root, sorted(done.values(), key=lambda row: (row["split"], row["index"])))
    manifest["complete"] = True
    write_json(root / "manifest.json", manifest)
    return manifest


def _photographs(
    photos: Sequence[PhotoFile], settings: ForgedDatasetSettings, finder: FaceFinder
) -> tuple[dict[str, list[PhotoFile]], bool, dict[str, str]]:
    """The photographs of each split, whether the splits are disjoint, and name -> reason for those left out."""
    order = np.random.default_rng([settings.seed, len(SPLITS)]).permutation(len(photos))
    wanted = [photos[i] for i in order[: 2 * sum(settings.pairs().values())]]
    usable, skipped = find_faces(wanted, finder, min_width=settings.min_face_width)
    if not usable:
        raise ForgeryError(f"none of the {len(wanted)} photographs has a face to forge")
    fewest = 2 if settings.style == "combination" else 1
    if len(usable) < fewest:
        raise ForgeryError(
            f"a combination needs two photographs with a face, and only {usable[0].name} of {len(wanted)} has one"
        )
    groups, disjoint = split_photos(usable, settings.valid_share, fewest=fewest)
    return groups, disjoint, skipped


def _make(job: _Job) -> dict[str, Any]:
    """Make and write one pair; returns its line of the manifest."""
    settings = job.settings
    rng = np.random.default_rng([settings.seed, SPLITS.index(job.split), job.index])
    record, forgery = make_pair(job.photos, rng, style=settings.style, size=settings.size, index=job.index)
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
        **record,
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


def _manifest(
    settings: ForgedDatasetSettings, groups: dict[str, list[PhotoFile]], skipped: dict[str, str], disjoint: bool
) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "complete": False,
        "settings": asdict(settings),
        "images": {split: {"real": pairs, "fake": pairs} for split, pairs in settings.pairs().items()},
        "note": _NOTE_DISJOINT if disjoint else _NOTE_SHARED,
        "photographs": {split: sorted(photo.name for photo in group) for split, group in groups.items()},
        "skipped": dict(sorted(skipped.items())),
    }
