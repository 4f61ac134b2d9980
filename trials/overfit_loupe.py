"""Trial: Loupe learns eight images by heart (every class right, F1 of the forged class > 0.95).

    python trials/overfit_loupe.py [--steps 150] [--size 96]

Network and losses are configs/two_cores/loupe_joint.yaml's: classifier and segmentor together, the latter told the
truth in training and the score in testing. Changed: the eight images, of `--size` pixels, as one batch, no
augmentation, no warm-up, from ImageNet's weights. Needs ../shared/data/dfdc_pairs.
"""

from __future__ import annotations

import sys

from overfit_swin_tiny import overfit, parse


def main() -> int:
    args = parse(__doc__, steps=150, size=96)
    changes = {
        "MODEL.LOUPE.INPUT_SIZE": str(args.size),
        "MODEL.LOUPE.MAP_SIZE": str(args.size),
        "SOLVER.BASE_LR": "0.001",
        "SOLVER.WARMUP_ITERS": "0",
        "INPUT.JPEG_PROB": "0.0",
        "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    }
    return overfit(
        "two_cores/loupe_joint.yaml",
        steps=args.steps,
        size=args.size,
        changes=changes,
        wanted={"accuracy": 0.99, "f1": 0.95},
    )


if __name__ == "__main__":
    sys.exit(main())
