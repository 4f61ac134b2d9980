"""Trial: SwinUNet with sharpness-aware minimization learns eight images by heart (F1 of the forged class > 0.95).

    python trials/overfit_swin_unet.py [--steps 300] [--size 128]

Network and losses are configs/two_cores/swin_unet_efficientnet_lite0.yaml's. Changed: SAM on, images of `--size`
pixels, the eight of them as one batch, no augmentation, no self-blending (their own masks). Needs
../shared/data/dfdc_pairs.
"""

from __future__ import annotations

import sys

from overfit_swin_tiny import overfit, parse


def main() -> int:
    args = parse(__doc__, steps=300, size=128)
    changes = {
        "SOLVER.SAM.ENABLED": "True",
        "SOLVER.BASE_LR": "0.003",
        "SOLVER.WARMUP_ITERS": "0",
        "INPUT.SELF_BLEND.ENABLED": "False",
        "INPUT.JPEG_PROB": "0.0",
        "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    }
    return overfit("two_cores/swin_unet_efficientnet_lite0.yaml", steps=args.steps, size=args.size, changes=changes)


if __name__ == "__main__":
    sys.exit(main())
