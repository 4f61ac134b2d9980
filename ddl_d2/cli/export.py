"""Export trained weights as an ONNX file, which ONNX Runtime predicts with, without torch.

    ddl-d2 export eyes_lite0 --output eyes.onnx
    ddl-d2 export model.safetensors --output small.onnx --precision int8 --labeled data/dfdc_pairs/valid

The graph takes `image`, uint8 B×H×W×3 RGB of any number and size, and gives `fake_score`, B, and `forgery_map`,
B×H×W: resizing, normalizing and padding are in it, and so is TEST.AUG.FLIP. After the export, 20 images of five sizes
go through it and through the original; where a score or a pixel of a map differs by more than 1e-4, the command fails
and leaves no file. A lower precision is written only if AUC and F1 on the labeled images are at most .005 lower than
before; what was measured stands in the file. In Python: `ddl_d2.inference.onnx_predictor.OnnxPredictor`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddl_d2.cli.common import add_overwrite, cli_errors, refuse_existing
from ddl_d2.cli.measure import figures_of, labeled_scores
from ddl_d2.errors import ConfigError, ExportError, InputError, InstallError
from ddl_d2.inference.model import load_model
from ddl_d2.inference.onnx_about import METADATA, OnnxAbout
from ddl_d2.inference.onnx_predictor import OnnxPredictor
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.io.atomic import replacing
from ddl_d2.io.image import read_image
from ddl_d2.modeling.system import ForgerySystem

ALLOWED_LOSS = 0.005
"""Of AUC and F1, by a lower precision."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", metavar="WEIGHTS", help="a file, or the name of weights that come with ddl_d2")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the .onnx file to write")
    parser.add_argument("--config", metavar="NAME", help="a config's name or file (default: the weights' own)")
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of the stored weights; sums are float32 (%(default)s)",
    )
    parser.add_argument(
        "--labeled", type=Path, metavar="ROOT", help="real and fake images, by which a lower precision is judged"
    )
    add_overwrite(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")
    return parser


@cli_errors()
def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".onnx":
        raise ConfigError(f"--output {args.output}: must end in .onnx")
    if args.precision != "float32" and args.labeled is None:
        raise InputError(f"--precision {args.precision} needs --labeled ROOT: real and fake images to judge it by")
    refuse_existing(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.output) as temporary:
        about = write_checked(args, temporary)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {about.precision}")
    parity = about.parity
    print(f"parity of float32 on {parity['images']} images: score {parity['score']:.1e}, map {parity['map']:.1e}")
    for name, loss in about.quality.get("loss", {}).items():
        print(f"{name}: {about.quality['before'][name]:.4f}, after {about.quality['after'][name]:.4f}, lost {loss:.4f}")
    return 0


def write_checked(args: argparse.Namespace, path: Path) -> OnnxAbout:
    """Write the file that the command line asks for, checked; returns what it says of itself.

    Raises:
        ConfigError: as `export_onnx`.
        ExportError: as `export_onnx` and `check_parity`, or a lower precision loses too much.
    """
    try:
        import onnx

        from ddl_d2.export.onnx_file import export_onnx
        from ddl_d2.export.parity import check_images, check_parity
        from ddl_d2.export.precision import in_precision
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxruntime", "onnxscript"):
            raise
        raise InstallError(f"exporting needs {error.name}: pip install 'ddl_d2[onnx]'") from error
    opts = [*args.opts, "TEST.PRECISION", "float32", "MODEL.COMPILE", "False"]
    loaded = load_model(args.weights, config=args.config, device="cpu", opts=opts)
    if not isinstance(loaded.predictor, ForgeryPredictor):
        raise ExportError(f"{loaded.cfg.MODEL.META_ARCHITECTURE} sees clips; systems that see images are exported")
    whole = ForgeryPredictor(loaded.predictor.model, loaded.predictor.augmentation)
    model = export_onnx(loaded.cfg, next(m for m in whole.model.modules() if isinstance(m, ForgerySystem)))
    onnx.save(model, path)
    exported = OnnxPredictor(path)
    about = replace(exported.about, parity=check_parity(exported, whole, check_images())._asdict())
    if args.precision != "float32":
        before = _figures(exported, args.labeled)
        model = in_precision(model, args.precision)
        onnx.save(model, path)
        quality = judged(before, _figures(OnnxPredictor(path), args.labeled), args.precision)
        about = replace(about, precision=args.precision, quality=quality)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(about.as_dict())})
    onnx.save(model, path)
    return about


def judged(before: dict[str, float], after: dict[str, float], precision: str) -> dict[str, Any]:
    """Compare figures from before a conversion with those after: both, and the `loss` of each.

    Raises:
        ExportError: one is more than `ALLOWED_LOSS` lower; names all.
    """
    loss = {name: before[name] - after[name] for name in before}
    if not max(loss.values()) <= ALLOWED_LOSS:
        figures = ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in before)
        raise ExportError(f"{precision} loses more than {ALLOWED_LOSS:g}: {figures}. No file was written")
    return {"before": before, "after": after, "loss": loss}


def _figures(model: OnnxPredictor, root: Path) -> dict[str, float]:
    figures = figures_of(list(labeled_scores(model, root, read_image)))
    found: dict[str, float] = {}
    for name in ("auc", "f1"):
        if isinstance(figure := figures.get(name), tuple):
            found[name] = figure[0]
    if "auc" not in found:
        raise InputError(f"{root}: needs real and fake images, to judge a lower precision by")
    return found


if __name__ == "__main__":
    sys.exit(main())
