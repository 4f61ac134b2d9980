"""Train the small autoencoder that rebuilds faces for swap-like forgeries, on the faces a recipe trains on.

    ddl-d2 train-autoencoder --config release/eyes_lite0 --output output/face_autoencoder.safetensors

It takes about a quarter of an hour on one core. INPUT.FACE_SWAP.AUTOENCODER names the file afterwards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import trange

from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli.common import add_overwrite, cli_errors, count, positive, refuse_existing
from ddl_d2.data.build import training_rows
from ddl_d2.data.build_faces import build_face_finder
from ddl_d2.data.datasets import load_config
from ddl_d2.data.face_swap_mapper import FaceSwapMapper, swap_options, training_faces
from ddl_d2.errors import InputError
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.face_autoencoder import AutoencoderTraining, FaceAutoencoder

# Steps between two values of the loss that are shown.
_SHOWN = 50


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="NAME", help="the recipe: a config's name or file")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--steps", type=positive, default=4000, metavar="N", help="of 8 images (%(default)s)")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of all that is drawn (%(default)s)")
    add_overwrite(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Train and save it; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise InputError(f"--output {args.output}: must end with .safetensors")
    refuse_existing(args)
    cv2.setNumThreads(1)
    cfg = load_config(args.config, args.opts)
    mapper = FaceSwapMapper(build_face_finder(cfg), swap_options(cfg.INPUT.FACE_SWAP), max_pixels=cfg.INPUT.MAX_PIXELS)
    photos = [image for image, _ in training_faces(mapper, training_rows(cfg)[0])]
    torch.manual_seed(args.seed)
    draw = Draw(np.random.default_rng(args.seed))
    network = FaceAutoencoder()
    training = AutoencoderTraining(network, steps=args.steps)
    losses = []
    for step in (bar := trange(args.steps, unit="step", disable=None)):
        losses.append(training.step(photos, draw))
        if step % _SHOWN == _SHOWN - 1:
            bar.set_postfix(loss=f"{np.mean(losses[-_SHOWN:]):.4f}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(str(args.output), network.state_dict(), name="face autoencoder", steps=args.steps, seed=args.seed)
    print(f"{args.output}: {len(photos)} faces, {args.steps} steps, loss {np.mean(losses[-_SHOWN:]):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
