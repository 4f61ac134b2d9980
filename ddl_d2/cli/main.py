"""The command `ddl-d2`: one word says what to do, the rest belongs to that command.

A command's module is imported only when it is asked for, so that `ddl-d2 --help` and `ddl-d2 info` need no torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ddl_d2.cli.common import cli_errors
from ddl_d2.requirements import explained
from ddl_d2.utils.threads import share_cores
from ddl_d2.version import __version__

COMMANDS = {
    "predict": "say of images whether they are real or forged, and where",
    "review": "list what predict found in the order in which people should look at it",
    "examine": "examine images and clips, and leave records that can be repeated",
    "timeline": "follow the faces of a clip, and say when their scores are above the threshold",
    "serve": "serve a page on this machine that examines images and clips, and the same by HTTP",
    "train": "train a system, or evaluate it on datasets (--eval-only)",
    "adapt": "adapt a trained Loupe to the images to be predicted, without their labels, and predict them",
    "evaluate": "measure saved predictions against a dataset",
    "compare": "compare saved predictions of several systems, with 95 % intervals",
    "report": "write one HTML file about saved predictions or predicted files: figures, curves, galleries",
    "calibrate": "turn a model's scores into likelihood ratios and three verdicts, and check how that does",
    "ddl-x": "check and score answers of the DDL-X challenge",
    "measure": "measure weights on datasets, with 95 % intervals",
    "robustness": "measure weights under fifteen corruptions at five levels",
    "release-weights": "make the small file that ships of trained weights",
    "export": "write trained weights as an ONNX file, checked against the original",
    "fuse": "fuse the saved predictions of several systems",
    "demo": "draw what a model says of images or a video",
    "check-dataset": "report everything odd about a dataset",
    "make-forgeries": "make a set of real and forged images from photographs",
    "make-temporal-forgeries": "make a set of clips with forged seconds from real talking clips",
    "forgery-sheet": "show step by step how images are forged",
    "landmark": "find the faces of all images of a folder, for training",
    "cache-tokens": "compute the tokens of a frozen backbone once, for training Loupe's heads on them",
    "index-faces": "list the face crops of datasets, each with its own label, for training on them",
    "split-portraits": "sort portraits into training and validation sets by person",
    "train-autoencoder": "train the small network that rebuilds faces of forgeries made on the way",
    "replay": "repeat an examination from its record, or a training step that was stopped",
    "configs": "list the configs that come with ddl_d2",
    "info": "print what is installed, and what is missing",
    "install-detectron2": "install Detectron2's Python files from PyPI",
}
_PREDICTING = ("predict", "demo", "measure")
MODULES = {name: f"ddl_d2.cli.{name.replace('-', '_')}" for name in COMMANDS}


def build_parser() -> argparse.ArgumentParser:
    """The command line up to the command."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ddl-d2",
        description="Deepfake detection and localization: is this image real or forged, and which pixels were forged?",
        epilog=f"commands:\n{listed}\n\n`ddl-d2 COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ddl-d2 {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do, see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="for the command")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first; returns the exit code."""
    args = build_parser().parse_args(argv)
    # What argparse calls the program in the command's own usage line.
    sys.argv[0] = f"ddl-d2 {args.command}"
    share_cores(may_be_one=args.command in _PREDICTING)
    with explained():
        command = importlib.import_module(MODULES[args.command])
        return command.main(args.arguments)


if __name__ == "__main__":
    sys.exit(main())
