"""Look at what the forging engine does: a contact sheet, or where its time goes.

    ddl-d2 forgery-sheet --output sheet.png                    # scikit-image's astronaut, a row per region
    ddl-d2 forgery-sheet portrait.jpg --output sheet.png
    ddl-d2 forgery-sheet --input photographs --count 20 --output results.png     # a row per image
    ddl-d2 forgery-sheet --profile                             # pairs per second on one core, at 256 x 256

The columns are, with regions: source, target after its appearance, after its displacements, hard mask, soft mask,
result, difference from the source times four; without: real, forged, soft mask, difference times four.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import cv2
import numpy as np

from ddl_d2.cli.common import add_max_pixels, cli_errors
from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.errors import ForgeryError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.face import Face, FaceFinder
from ddl_d2.faces.finders import FINDERS, make_finder
from ddl_d2.forging.appearance import apply_steps
from ddl_d2.forging.blend import blend
from ddl_d2.forging.photos import PhotoFile, builtin_photos, folder_photos
from ddl_d2.forging.region_plans import draw_region
from ddl_d2.forging.regions import REGIONS
from ddl_d2.forging.self_blend import NoSuitableFaceError, region_stages, self_blend
from ddl_d2.forging.soft_mask import face_square_side
from ddl_d2.io.image import write_png

GAIN = 4
LABEL = 18
GAP = 2
STAGES = ("source", "appearance", "warped", "mask", "soft", "result", "diff x4")
PROFILED = ("draw_face", "draw_appearance", "soft_region_mask", "sampling_maps", "sample", "apply_steps", "blend")
PROFILE_SIZE = 256


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="a row per region of each")
    parser.add_argument("--input", type=Path, metavar="FOLDER", help="a row for each of its images instead")
    parser.add_argument("--count", type=int, default=20, help="images of --input, evenly picked (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="PNG", help="where to write the sheet")
    parser.add_argument("--profile", action="store_true", help="print pairs per second and where the time goes")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same sheet (%(default)s)")
    parser.add_argument("--cell", type=int, default=144, help="side of a cell, pixels (%(default)s)")
    parser.add_argument("--finder", choices=FINDERS, default="dlib", help="what finds the faces (%(default)s)")
    parser.add_argument("--yunet-model", type=Path, metavar="FILE", help="YuNet's ONNX file")
    add_max_pixels(parser)
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Make the sheet or the profile; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.output is None) == (not args.profile):
        parser.error("give --output or --profile")
    if args.input and args.images:
        parser.error("give images or --input, not both")
    if args.count < 1 or args.cell < 16 or args.seed < 0:
        parser.error("--count must be at least 1, --cell at least 16, --seed not negative")
    finder = CachedFaceFinder(make_finder(args.finder, yunet_model=args.yunet_model))
    given = [PhotoFile(str(path), path, max_pixels=args.max_pixels) for path in args.images] or builtin_photos()[:1]
    if args.profile:
        profile(given[0], finder, args.seed)
        return 0
    if args.input:
        photos = folder_photos(args.input, max_pixels=args.max_pixels)
        picked = np.linspace(0, len(photos) - 1, min(args.count, len(photos))).round().astype(int)
        sheet = results_sheet([photos[i] for i in picked], finder, args.seed, args.cell)
    else:
        sheet = np.concatenate([regions_sheet(photo, finder, args.seed, args.cell) for photo in given])
    write_png(args.output, sheet, compress_level=9)
    print(f"{args.output}: {sheet.shape[1]} x {sheet.shape[0]} pixels")
    return 0


def regions_sheet(photo: PhotoFile, finder: FaceFinder, seed: int, cell: int) -> np.ndarray:
    """A row per region of the widest face of an image: uint8 H×W×3."""
    image, faces = _open(photo, finder)
    face = max(faces, key=lambda one: one.width)
    view = _view(face, image.shape[:2])
    rows = []
    for number, region in enumerate(REGIONS):
        rng = np.random.default_rng([seed, number])
        options = ForgeryOptions(ratios=(1.0,))
        plan = draw_region(face, region, rng, options)
        stages = region_stages(image, face, plan)
        if stages is None:
            raise ForgeryError(f"{photo.path}: {region} lies outside the image")
        x0, y0, x1, y1 = stages.box
        soft, hard = np.zeros((2, *image.shape[:2]), np.float32)
        soft[y0:y1, x0:x1], hard[y0:y1, x0:x1] = stages.soft, stages.hard
        warped, result = image.copy(), image.copy()
        warped[y0:y1, x0:x1] = stages.warped
        result[y0:y1, x0:x1] = blend(image[y0:y1, x0:x1], stages.warped, stages.soft * np.float32(plan.ratio))
        images = [image, apply_steps(image, plan.appearance), warped, _gray(hard), _gray(soft), result]
        cells = [_fit(panel[view], cell) for panel in [*images, _difference(image, result)]]
        rows.append(_row(cells, region))
    return np.concatenate([_header(STAGES, cell), *rows])


def results_sheet(photos: list[PhotoFile], finder: FaceFinder, seed: int, cell: int) -> np.ndarray:
    """A row per image, made as for training: uint8 H×W×3. Images without a face keep an empty row."""
    rows = []
    for number, photo in enumerate(photos):
        image, cells = photo.read(), []
        try:
            made = self_blend(image, finder(image), np.random.default_rng([seed, number]))
        except NoSuitableFaceError as error:
            cells, label = [_fit(image, cell)] + [np.zeros((cell, cell, 3), np.uint8)] * 3, str(error)
        else:
            images = [made.real, made.image, _gray(made.soft), _difference(made.real, made.image)]
            cells = [_fit(panel, cell) for panel in images]
            done = [
                "+".join(f"{region['region']} {region['ratio']:g}" for region in face["regions"]) or "-"
                for face in made.record["faces"]
            ]
            label = f"{made.record['appearance_of']}: {', '.join(done)}"
        rows.append(_row(cells, label))
    return np.concatenate([_header(("real", "forged", "soft mask", "diff x4"), cell), *rows])


def profile(photo: PhotoFile, finder: FaceFinder, seed: int, pairs: int = 300) -> None:
    """Print pairs per second on one core at 256 x 256 with the faces given, and where the time goes."""
    cv2.setNumThreads(1)
    image, faces = _open(photo, finder)
    face = max(faces, key=lambda one: one.width)
    scale = 0.55 * PROFILE_SIZE / face.width  # a face that fills its image, as crops for training have it
    center = (face.landmarks.min(0) + face.landmarks.max(0)) / 2
    matrix = np.concatenate([scale * np.eye(2), (PROFILE_SIZE / 2 - scale * center)[:, None]], axis=1)
    image = cv2.warpAffine(image, matrix, (PROFILE_SIZE, PROFILE_SIZE), borderMode=cv2.BORDER_REFLECT_101)
    faces = [face.moved(matrix)]

    def work() -> None:
        for number in range(pairs):
            self_blend(image, faces, np.random.default_rng([seed, number]))

    work()  # once to warm up
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    size = f"{PROFILE_SIZE} x {PROFILE_SIZE}, face {faces[0].width:.0f} px"
    print(f"{pairs / seconds:.0f} pairs a second on one core ({size})")
    profiler = cProfile.Profile()
    profiler.runcall(work)
    entries = {
        name: entry
        for (file, _, name), entry in pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
        if name in (*PROFILED, "self_blend") and Path(file).parent.name == "forging"
    }
    whole = entries["self_blend"][3]
    for name in PROFILED:
        if name in entries:
            _, calls, _, spent, _ = entries[name]
            print(f"  {name:18s} {100 * spent / whole:5.1f} %  {calls / pairs:5.2f} calls a pair")


def _open(photo: PhotoFile, finder: FaceFinder) -> tuple[np.ndarray, list[Face]]:
    image = photo.read()
    faces = finder(image)
    if not faces:
        raise ForgeryError(f"{photo.path}: no face found")
    return image, faces


def _view(face: Face, shape: tuple[int, int]) -> tuple[slice, slice]:
    half = face_square_side(face.landmarks) * 0.55
    x, y = (face.landmarks.min(0) + face.landmarks.max(0)) / 2
    rows = slice(max(0, int(y - half)), min(shape[0], int(y + half)))
    return rows, slice(max(0, int(x - half)), min(shape[1], int(x + half)))


def _gray(mask: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(mask * 255).astype(np.uint8)[..., None], 3, axis=2)


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(cv2.absdiff(one, other), alpha=GAIN)


def _fit(panel: np.ndarray, cell: int) -> np.ndarray:
    """An image within a square of `cell` pixels, centerd on black."""
    scale = cell / max(panel.shape[:2])
    size = (max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale)))
    small = cv2.resize(panel, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y, x = (cell - size[1]) // 2, (cell - size[0]) // 2
    canvas = np.zeros((cell, cell, 3), np.uint8)
    canvas[y : y + size[1], x : x + size[0]] = small
    return canvas


def _row(cells: list[np.ndarray], label: str) -> np.ndarray:
    gap = np.full((cells[0].shape[0], GAP, 3), 255, np.uint8)
    images = np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=1)
    return np.concatenate([_text([(0, label)], images.shape[1]), images])


def _header(names: tuple[str, ...], cell: int) -> np.ndarray:
    return _text([(i * (cell + GAP), name) for i, name in enumerate(names)], len(names) * (cell + GAP) - GAP)


def _text(words: list[tuple[int, str]], width: int) -> np.ndarray:
    strip = np.full((LABEL, width, 3), 255, np.uint8)
    for x, word in words:
        cv2.putText(strip, word, (x + 3, LABEL - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
