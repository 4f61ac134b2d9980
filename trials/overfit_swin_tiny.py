"""Trial: Swin-T under the paper's config learns eight images by heart (F1 of the forged class > 0.95).

    python trials/overfit_swin_tiny.py [--steps 200] [--size 96]

Network, losses, optimizer, clipping and schedule are configs/ddl_i/mask2former_swin_tiny.yaml's. Changed for two cores:
images of `--size` pixels, the eight of them as one batch, no augmentation, drop-path off, fp32, no ImageNet weights.
Needs ../shared/data/dfdc_pairs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT.parent / "shared" / "data" / "dfdc_pairs" / "train"
NUM_FAKE, NUM_REAL = 5, 3
WANTED = {"f1": 0.95}


def copy_eight(target: Path) -> None:
    """The first fakes (with masks) and reals, as both the training and the validation split."""
    for split in ("train", "valid"):
        for folder in ("real", "fake", "masks"):
            (target / split / folder).mkdir(parents=True)
        for fake in sorted((SOURCE / "fake").iterdir())[:NUM_FAKE]:
            shutil.copy(fake, target / split / "fake")
            shutil.copy(SOURCE / "masks" / f"{fake.stem}.png", target / split / "masks")
        for real in sorted((SOURCE / "real").iterdir())[:NUM_REAL]:
            shutil.copy(real, target / split / "real")


def parse(description: str | None, **defaults: int) -> argparse.Namespace:
    """`--steps` and `--size` from the command line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def overfit(config: str, *, steps: int, size: int, changes: dict[str, str], wanted: dict[str, float] = WANTED) -> int:
    """Train `config` with `changes` on the eight images, as one batch, and ask it about them; -> exit status.

    `wanted`: metrics that have to be above a value.
    """
    if not SOURCE.is_dir():
        print("skipped: needs ../shared/data/dfdc_pairs")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "data", Path(folder) / "output"
        copy_eight(data)
        options = {
            "DATASETS.DDL_ROOT": str(data),
            "OUTPUT_DIR": str(output),
            "INPUT.MIN_SIZE_TRAIN": f"({size},)",
            "INPUT.MIN_SIZE_TEST": str(size),
            "INPUT.SCALE_RANGE": "[1.0, 1.0]",
            "INPUT.CROP.ENABLED": "False",
            "INPUT.COLOR_AUG_SSD": "False",
            "INPUT.RANDOM_FLIP": "none",
            "SOLVER.IMS_PER_BATCH": str(NUM_FAKE + NUM_REAL),
            "SOLVER.MAX_ITER": str(steps),
            "SOLVER.CHECKPOINT_PERIOD": str(steps * 2),
            "SOLVER.AMP.ENABLED": "False",
            "TEST.EVAL_PERIOD": "100",
            "DATALOADER.NUM_WORKERS": "0",
            "VIS_PERIOD": "0",
            "SEED": "1",
        } | changes
        cfg = load_config(ROOT / "configs" / config, [word for pair in options.items() for word in pair])
        output.mkdir()
        ForgeryTrainer(cfg).train()
        metrics = json.loads((output / "inference" / "ddl_i_valid" / "metrics.json").read_text())
    passed = sum(metrics[name] > value for name, value in wanted.items())
    print("  ".join(f"{name} {metrics[name]:.4f}" for name in ("auc", "accuracy", "f1", "iou")))
    print(f"{passed} passed, {len(wanted) - passed} failed")
    return 0 if passed == len(wanted) else 1


def main() -> int:
    args = parse(__doc__, steps=200, size=96)
    changes = {"MODEL.TIMM.PRETRAINED": "", "MODEL.TIMM.DROP_PATH_RATE": "0.0"}
    return overfit("ddl_i/mask2former_swin_tiny.yaml", steps=args.steps, size=args.size, changes=changes)


if __name__ == "__main__":
    sys.exit(main())
