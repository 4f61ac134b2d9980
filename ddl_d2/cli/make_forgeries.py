"""Make a small set of real and forged face images, with masks, in DDL-I's layout.

    ddl-d2 make-forgeries --builtin --output data/toy
    ddl-d2 make-forgeries --real-dir photographs --output data/mine --count 2000 --workers 8

The forgeries are self-blended: regions of a face are displaced, recolored, re-sharpened or re-compressed, and blended
back into the same image. With --style combination they are coarse splices: faces of the folder's other photographs
are laid over an image's or pasted anywhere; use photographs whose terms allow that. The sets serve to try the whole
pipeline and to train without forged samples; they are not a benchmark. Many photographs: find their faces with
`ddl-d2 landmark` first, in parallel; both remember them in one cache.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ddl_d2.cli.common import add_max_pixels, cli_errors
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.dlib_finder import DlibFaceFinder
from ddl_d2.forging.forged_dataset import ForgedDatasetSettings, make_forged_dataset
from ddl_d2.forging.forged_pairs import STYLES
from ddl_d2.forging.photos import builtin_photos, folder_photos


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--real-dir", type=Path, metavar="DIR", help="folder of real photographs with faces")
    source.add_argument("--builtin", action="store_true", help="use two portraits that installed packages carry")
    parser.add_argument("--output", type=Path, required=True, metavar="ROOT", help="folder to make the set in")
    parser.add_argument("--count", type=int, default=520, help="images in all, half real, half forged (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (%(default)s)")
    parser.add_argument("--valid-share", type=float, default=0.23, help="share kept for valid (%(default)s)")
    parser.add_argument(
        "--size", type=int, default=256, help="side of a canvas, else the shortest side at most, pixels (%(default)s)"
    )
    parser.add_argument(
        "--style", choices=STYLES, default="canvas",
        help="canvas: several faces, easy forgeries; faces: face crops, forged as in training; plain: the same as "
        "self-blended images, without parts and local translations; combination: whole photographs with faces of "
        "others in them (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-face-width", type=float, default=40.0, metavar="PX", help="leave narrower faces out (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--landmarks", type=Path, metavar="DIR", help="cache of found faces (faces/ in $DDL_D2_CACHE)")
    parser.add_argument("--landmark-model", type=Path, metavar="FILE", help="another 68-point model for dlib")
    add_max_pixels(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="complete a set that was interrupted")
    existing.add_argument("--overwrite", action="store_true", help="delete a set made earlier, then make it anew")
    return parser


@cli_errors()
def main(argv: list[str] | None = None) -> int:
    """Make the set; returns the exit code."""
    args = build_parser().parse_args(argv)
    photos = builtin_photos() if args.builtin else folder_photos(args.real_dir, max_pixels=args.max_pixels)
    settings = ForgedDatasetSettings(
        source="builtin" if args.builtin else "folder",
        count=args.count,
        seed=args.seed,
        size=args.size,
        valid_share=args.valid_share,
        style=args.style,
        min_face_width=args.min_face_width,
    )
    finder = CachedFaceFinder(DlibFaceFinder(args.landmark_model), args.landmarks)
    manifest = make_forged_dataset(
        args.output,
        photos,
        settings,
        finder=finder,
        workers=args.workers,
        existing="resume" if args.resume else "overwrite" if args.overwrite else "refuse",
    )
    for name, reason in manifest["skipped"].items():
        print(f"skipped {name}: {reason}")
    for split, number in manifest["images"].items():
        print(f"{split}: {number['real']} real, {number['fake']} forged")
    print(manifest["note"])
    return 0
