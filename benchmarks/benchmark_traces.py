"""How often traces of re-saving are found, and found wrongly, on photographs whose history is made here.

    python benchmarks/benchmark_traces.py --images FOLDER

Each photograph is first shrunk by half (the mean of four pixels), which takes the traces of its own history away. Then
it is saved and scaled in known ways, and looked at as `ddl-d2 examine` looks at a file. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ddl_d2.inference.images import expand_inputs
from ddl_d2.io.image import jpeg_bytes, read_image
from ddl_d2.report.traces import earlier_qualities, enlargement, is_large_enough

Pixels = NDArray[np.uint8]
SAVES: Sequence[tuple[int, ...]] = ((), (95,), (85,), (70,), (70, 90), (80, 95), (90, 95), (60, 75), (75, 85), (90, 70))
SCALES: Sequence[tuple[float, int, str]] = (
    (1.0, 0, "not scaled"),
    (1.25, cv2.INTER_CUBIC, "enlarged 1.25, cubic"),
    (1.5, cv2.INTER_LINEAR, "enlarged 1.5, linear"),
    (1.5, cv2.INTER_CUBIC, "enlarged 1.5, cubic"),
    (2.0, cv2.INTER_CUBIC, "enlarged 2, cubic"),
    (0.75, cv2.INTER_CUBIC, "shrunk 0.75, cubic"),
    (0.5, cv2.INTER_AREA, "shrunk 0.5, area"),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, metavar="FOLDER", help="photographs")
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="of the photographs, evenly spread (%(default)s)"
    )
    return parser


def saved(image: Pixels, qualities: Sequence[int]) -> Pixels:
    """The pixels after saving as JPEG at each quality in turn."""
    for quality in qualities:
        image = cv2.cvtColor(cv2.imdecode(jpeg_bytes(image, quality), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image


def luma(image: Pixels) -> Pixels:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def share(images: Sequence[Pixels], found: Callable[[Pixels], bool]) -> str:
    count = sum(map(found, images))
    return f"{count} of {len(images)}"


def of_saves(images: Sequence[Pixels], qualities: tuple[int, ...]) -> tuple[str, str]:
    """(found at all, found at the right quality within 2) of an earlier save."""
    last = qualities[-1] if qualities else None
    found = [earlier_qualities(luma(saved(image, qualities)), saved_at=last) for image in images]
    right = sum(any(abs(quality - qualities[0]) <= 2 for quality, _ in one) for one in found) if qualities else 0
    return f"{sum(map(bool, found))} of {len(found)}", f"{right} of {len(found)}" if len(qualities) > 1 else ""


def scaled(image: Pixels, factor: float, way: int) -> Pixels:
    return image if factor == 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=way)


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    paths = expand_inputs([args.images]).images
    paths = paths[:: max(1, len(paths) // args.limit)][: args.limit]
    halves = [cv2.resize(read_image(path), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for path in paths]
    images = [image for image in halves if is_large_enough(image[..., 0])]
    print(f"{len(images)} photographs")
    print("\n| saved as JPEG at | earlier save found | at its quality, within 2 |\n|---|---|---|")
    for qualities in SAVES:
        print(f"| {', then '.join(map(str, qualities)) or 'not at all'} | {' | '.join(of_saves(images, qualities))} |")
    print("\n| scaled | as it is | then JPEG 95 | then JPEG 85 | then JPEG 70 |\n|---|---|---|---|---|")
    for factor, way, name in SCALES:
        cells = []
        for qualities in ((), (95,), (85,), (70,)):
            made = [luma(saved(scaled(image, factor, way), qualities)) for image in images]
            cells.append(share(made, lambda gray: enlargement(gray).found))
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
