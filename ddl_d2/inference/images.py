"""Predicting many images into a folder: an overlay and a JSON file for each, and one list of all."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.prediction import Prediction
from ddl_d2.io.atomic import write_json
from ddl_d2.io.file_kinds import file_kind, passed_over_note
from ddl_d2.io.file_names import is_image
from ddl_d2.io.image import read_image, write_png
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.utils.text import printable

SUMMARY_NAME = "predictions.json"
RESULTS_NAME = "results.jsonl"
_LONGEST_NAME = 180  # bytes, so that suffixes fit into the 255 that file systems allow


class Inputs(NamedTuple):
    """The files that a command line means, each once, in order.

    Attributes:
        images: to be predicted; whether they can be read is not known yet.
        videos: likewise.
        passed_over: files in folders that are neither.
    """

    images: list[Path]
    videos: list[Path]
    passed_over: list[Path]

    def note(self) -> str:
        """One line about what was passed over; "" if nothing was."""
        return passed_over_note(self.passed_over)


def expand_inputs(inputs: Sequence[str | os.PathLike[str]], *, output: Path | None = None) -> Inputs:
    """Find the files meant by files, globs and folders (searched to the bottom; hidden files are left out).

    Files in folders are told apart by their names, and by their content where the name says nothing. A file that is
    named itself, or matches a glob, counts as an image unless it is a video.

    Args:
        inputs: files, globs and folders.
        output: the folder that results are written to. If an earlier call has left results there, what lies in it is
            not an input.

    Raises:
        InputError: a path that does not exist, a glob that matches nothing, a folder without images and videos.
    """
    images: dict[Path, None] = {}
    videos: dict[Path, None] = {}
    passed_over: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            named, files = False, sorted(p for p in path.rglob("*") if p.name[0] != "." and p.is_file())
        elif path.exists():
            named, files = True, [path]
        else:
            found = sorted(glob.glob(os.fspath(text), recursive=True))
            named, files = True, [Path(match) for match in found if Path(match).is_file()]
            if not files:
                raise InputError(f"{text}: no such file or folder, and no file matches it")
        kept = without_own_outputs(files, output)
        kinds = {file: file_kind(file) for file in kept}
        if not named and not {"image", "video"} & set(kinds.values()):
            raise InputError(f"{path}: no image in this folder ({len(kinds)} files of other kinds)")
        for file, kind in kinds.items():
            group = videos if kind == "video" else images if kind == "image" or named else passed_over
            group[file] = None
    return Inputs(list(images), list(videos), list(passed_over))


def without_own_outputs(files: Sequence[Path], output: Path | None) -> list[Path]:
    """Leave out what lies in a folder of results that an earlier call has made."""
    if output is None or not any((output / name).is_file() for name in (SUMMARY_NAME, RESULTS_NAME)):
        return list(files)
    own = output.resolve()
    return [file for file in files if own not in file.resolve().parents]


def output_names(paths: Sequence[Path]) -> list[str]:
    """A different name (without suffix) for each image: its stem where that is enough.

    Images whose stems agree, upper and lower case alike, are told apart by their suffix, then by their folders,
    then by a number.
    """
    taken = {Path(SUMMARY_NAME).stem}
    candidates: list[Callable[[Path], str]] = [
        lambda path: _short(path.stem),
        lambda path: _short(path.name),
        lambda path: _short("__".join((*path.parts[-2:-1], path.stem))),
        lambda path: _short("__".join((*path.parts[-3:-1], path.stem))),
        lambda path: _short("__".join((*path.parts[-3:-1], path.name))),
    ]
    names: dict[int, str] = {}
    for candidate in candidates:
        left = [i for i in range(len(paths)) if i not in names]
        counts = Counter(candidate(paths[i]).lower() for i in left)
        for i in left:
            name = candidate(paths[i])
            if counts[name.lower()] == 1 and name.lower() not in taken:
                names[i] = name
        taken |= {name.lower() for name in names.values()}
    for i, path in enumerate(paths):
        number = 2
        while i not in names:
            if (name := f"{_short(path.name)}-{number}").lower() not in taken:
                names[i] = name
                taken.add(name.lower())
            number += 1
    return [names[i] for i in range(len(paths))]


def _short(name: str) -> str:
    """A name as text without line feeds and the like, cut to what leaves room for a suffix."""
    return printable(name).encode()[:_LONGEST_NAME].decode(errors="ignore")


def plan_outputs(paths: Sequence[Path], output: Path) -> list[Path]:
    """The overlay's file for each image: `output` itself if it ends in .png (one image only), else inside it.

    Raises:
        InputError: several images into one file, a file that is no .png, or an overlay that would replace one of the
            images.
    """
    if output.suffix.lower() == ".png" and not output.is_dir():
        if len(paths) > 1:
            raise InputError(f"{output}: {len(paths)} images do not fit in one file; give a folder")
        planned = [output]
    elif output.is_file() or (is_image(output.name) and not output.is_dir()):
        raise InputError(f"{output}: the output is a folder, or a file that ends in .png")
    else:
        planned = [output / f"{name}.png" for name in output_names(paths)]
    own = {path.resolve() for path in paths}
    for path in planned:
        if path.resolve() in own:
            raise InputError(f"{path}: the overlay would replace an image that is to be read; choose another folder")
    return planned


def heat_map_file(overlay: Path) -> Path:
    """Where the heat map beside an overlay goes: `face.png` -> `face.heat_map.png`."""
    return overlay.with_suffix(".heat_map.png")


def reliability_file(overlay: Path) -> Path:
    """Where the reliability map beside an overlay goes: `face.png` -> `face.reliability_map.png`."""
    return overlay.with_suffix(".reliability_map.png")


def check_side_files(overlays: Sequence[Path], images: Sequence[Path], side: Callable[[Path], Path]) -> None:
    """Raise InputError if a file beside an overlay would replace another's overlay, or an image that is to be read.

    Args:
        overlays: of the images.
        images: that are to be read.
        side: from an overlay to the file beside it, such as `heat_map_file`.
    """
    taken = {path.resolve() for path in (*overlays, *images)}
    for overlay in overlays:
        if side(overlay).resolve() in taken:
            what = side(overlay).suffixes[-2].lstrip(".").replace("_", " ")
            raise InputError(f"{side(overlay)}: the {what} would replace another file; rename that image")


def predict_images(
    jobs: Iterable[tuple[Path, Path]],
    predictor: Callable[..., Mapping[str, Any]],
    *,
    threshold: float = 0.5,
    map_threshold: float = 0.5,
    max_pixels: int = 64_000_000,
    calibration: Calibration | None = None,
    about: Mapping[str, Any] | None = None,
    heat_maps: bool = False,
) -> tuple[list[dict[str, Any]], list[ImageReadError]]:
    """Predict images, one at a time, and write an overlay PNG and a JSON file for each.

    Args:
        jobs: (image, file of its overlay); the JSON file has the same name but .json.
        threshold: a score above it is a fake.
        map_threshold: a pixel is forged where its map is above it.
        calibration: decides in place of `threshold`.
        max_pixels: the most pixels an image may have.
        predictor: uint8 H×W×3 RGB -> the model's output; it takes `heat_map=True` if heat maps are asked for.
        about: entries added to every JSON file, such as the model's name.
        heat_maps: write one beside each overlay, see `heat_map_file`.

    Returns:
        what the JSON files say, and one error for each image that could not be read.
    """
    rows, failed = [], []
    for source, overlay in jobs:
        try:
            image = read_image(source, max_pixels=max_pixels)
            prediction = predictor(image, heat_map=True) if heat_maps else predictor(image)
            result = Prediction(
                file=printable(source),
                image=image,
                output=prediction,
                threshold=threshold,
                map_threshold=map_threshold,
                calibration=calibration,
            )
            rows.append(_write(result, overlay, {**(about or {})}, heat_map=heat_maps))
        except ImageReadError as error:
            failed.append(error)
        except OSError as error:
            failed.append(ImageReadError(source, f"its results cannot be written ({error.strerror or error})"))
    return rows, failed


def _write(result: Prediction, overlay: Path, about: Mapping[str, Any], *, heat_map: bool) -> dict[str, Any]:
    """Write what belongs to one image; returns what its JSON file says."""
    row = {"overlay": printable(overlay.name), **result.to_dict(), **about}
    write_png(overlay, result.draw())
    if heat_map:
        heat = heat_map_file(overlay)
        row["heat_map"] = printable(heat.name)
        write_png(heat, result.draw_heat_map())
    write_json(overlay.with_suffix(".json"), row)
    return row
