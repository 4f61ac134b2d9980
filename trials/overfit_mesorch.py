"""Trial: Mesorch learns eight images by heart (F1 of the forged class > 0.95).

    python trials/overfit_mesorch.py [--steps 60] [--size 224]

Network and loss are configs/two_cores/mesorch_efficientnet_lite0.yaml's. Changed: the eight images as one batch, no
augmentation, no warm-up. Needs ../shared/data/dfdc_pairs.
"""

from __future__ import annotations

import sys

from overfit_swin_tiny import overfit, parse


def main() -> int:
    args = parse(__doc__, steps=60, size=224)
    changes = {
        "MODEL.MESORCH.INPUT_SIZE": str(args.size),
        "SOLVER.WARMUP_ITERS": "0",
        "INPUT.JPEG_PROB": "0.0",
        "INPUT.AUGMENT.COLOR_PROB": "0.0",
        "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    }
    return overfit("two_cores/mesorch_efficientnet_lite0.yaml", steps=args.steps, size=args.size, changes=changes)


if __name__ == "__main__":
    sys.exit(main())
