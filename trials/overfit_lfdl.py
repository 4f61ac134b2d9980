"""Trial: LFDL learns eight images by heart (every class right, F1 of the forged class > 0.9).

    python trials/overfit_lfdl.py [--steps 100] [--size 224]

Network and losses are configs/two_cores/lfdl_efficientnet_lite0.yaml's. Changed: the eight images as one batch, no
augmentation, no warm-up. Its map is one of 14 × 14 cells, enlarged: borders are as coarse. Needs
../shared/data/dfdc_pairs.
"""

from __future__ import annotations

import sys

from overfit_swin_tiny import overfit, parse


def main() -> int:
    args = parse(__doc__, steps=100, size=224)
    changes = {
        "MODEL.LFDL.INPUT_SIZE": str(args.size),
        "SOLVER.WARMUP_ITERS": "0",
        "INPUT.JPEG_PROB": "0.0",
        "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    }
    return overfit(
        "two_cores/lfdl_efficientnet_lite0.yaml",
        steps=args.steps,
        size=args.size,
        changes=changes,
        wanted={"accuracy": 0.99, "f1": 0.9},
    )


if __name__ == "__main__":
    sys.exit(main())
