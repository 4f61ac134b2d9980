"""Predicting many images into a folder: an overlay and a JSON file for each, and one list of all."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddl_d2.errors import ImageReadError, InputError
from ddl_d2.inference.overlay import draw_heat_map, draw_prediction
from ddl_d2.inference.prediction import summarize
from ddl_d2.io.atomic import write_json
from ddl_d2.io.file_names import IMAGE_EXTENSIONS, is_image
from ddl_d2.io.image import read_image, write_png

SUMMARY_NAME = "predictions.json"


def expand_inputs(inputs: Sequence[str]) -> list[Path]:
    """The images meant by files, globs and folders (searched to the bottom), each once, in order.

    Raises:
        InputError: a path that does not exist, a glob that matches nothing, a folder without images.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            images = sorted(p for p in path.rglob("*") if is_image(p.name) and p.is_file())
            if not images:
                raise InputError(f"{path}: no image ({', '.join(sorted(IMAGE_EXTENSIONS))}) in this folder")
        elif path.exists():
            images = [path]
        else:
            images = [Path(match) for match in sorted(glob.glob(text, recursive=True)) if Path(match).is_file()]
            if not images:
                raise InputError(f"{text}: no such file or folder, and no file matches it")
        found.update(dict.fromkeys(images))
    return list(found)


def output_names(paths: Sequence[Path]) -> list[str]:
    """A different name (without suffix) for each image: its stem where that is enough.

    Images whose stems agree, upper and lower case alike, are told apart by their suffix, then by their folders,
    then by a number.
    """
    taken = {Path(SUMMARY_NAME).stem}
    candidates: list[Callable[[Path], str]] = [
        lambda path: path.stem,
        lambda path: path.name,
        lambda path: "__".join((*path.parts[-2:-1], path.stem)),
        lambda path: "__".join((*path.parts[-3:-1], path.stem)),
        lambda path: "__".join((*path.parts[-3:-1], path.name)),
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
            if (name := f"{path.name}-{number}").lower() not in taken:
                names[i] = name
                taken.add(name.lower())
            number += 1
    return [names[i] for i in range(len(paths))]


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


def check_heat_map_files(overlays: Sequence[Path], images: Sequence[Path]) -> None:
    """Raise InputError if a heat map would replace another image's overlay, or an image that is to be read."""
    taken = {path.resolve() for path in (*overlays, *images)}
    for overlay in overlays:
        if heat_map_file(overlay).resolve() in taken:
            raise InputError(f"{heat_map_file(overlay)}: the heat map would replace another file; rename that image")


def predict_images(
    jobs: Iterable[tuple[Path, Path]],
    predictor: Callable[..., Mapping[str, Any]],
    *,
    threshold: float = 0.5,
    map_threshold: float = 0.5,
    max_pixels: int = 64_000_000,
    about: Mapping[str, Any] | None = None,
    heat_maps: bool = False,
) -> tuple[list[dict[str, Any]], list[ImageReadError]]:
    """Predict images, one at a time, and write an overlay PNG and a JSON file for each.

    Args:
        jobs: (image, file of its overlay); the JSON file has the same name but .json.
        threshold: a score above it is a fake.
        map_threshold: a pixel is forged where its map is above it.
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
        except ImageReadError as error:
            failed.append(error)
            continue
        prediction = predictor(image, heat_map=True) if heat_maps else predictor(image)
        summary = summarize(prediction, threshold, map_threshold)
        row = {"file": printable(source), "overlay": printable(overlay.name), **summary.as_dict(), **(about or {})}
        if "faces" in prediction:
            row["faces"] = [{"box": list(f["window"]), "score": f["fake_score"]} for f in prediction["faces"]]
        figure = draw_prediction(
            image, prediction, threshold, map_threshold=map_threshold, title=printable(source.name)
        )
        write_png(overlay, figure)
        if heat_maps:
            heat = heat_map_file(overlay)
            row["heat_map"] = printable(heat.name)
            write_png(heat, draw_heat_map(image, prediction, threshold, title=printable(source.name)))
        write_json(overlay.with_suffix(".json"), row)
        rows.append(row)
    return rows, failed


def printable(path: str | Path) -> str:
    """A path as text that any terminal, font and JSON reader takes, whatever bytes its name is made of."""
    return str(path).encode("utf-8", "backslashreplace").decode()
