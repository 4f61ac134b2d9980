"""Calibrate a model by the store of a labeled dataset: likelihood ratios, and a verdict that may be "inconclusive".

    ddl-d2 calibrate output/inference/ddl_i_valid/predictions --dataset-root datasets/ddl_i --split valid
    ddl-d2 calibrate STORE --dataset-root ROOT --groups people.csv --figure calibration.png
    ddl-d2 calibrate STORE --dataset-root ROOT --weights model.safetensors --attach calibrated.safetensors
    ddl-d2 calibrate OTHER_STORE --use STORE/calibration.json [--dataset-root OTHER_ROOT]

The first writes STORE/calibration.json and prints how such a calibration does on parts of the dataset that it was not
fitted to: whole people or videos (--groups) are held out in turn. The file holds for the weights and settings that made
the store. `ddl-d2 predict --calibration FILE` uses it, and --attach puts it into a copy of the weights, which then
carry it. --use writes the verdicts of a store, verdicts.csv, and says how they do if its dataset is named. What the
figures mean: docs/metrics.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddl_d2.cli.common import cli_errors, count
from ddl_d2.cli.evaluate import add_dataset, dataset_of
from ddl_d2.errors import CalibrationError
from ddl_d2.evaluation.groups import read_groups
from ddl_d2.inference.calibrated_weights import attach_calibration, tensors_digest
from ddl_d2.io.atomic import write_json
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.layout import CALIBRATION, VERDICTS
from ddl_d2.predictions.likelihood_ratio import METHODS, PAV
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.predictions.store import PredictionStore

if TYPE_CHECKING:
    from ddl_d2.report.held_out import HeldOut


def share(text: str) -> float:
    """A number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("must be above 0 and below 1")
    return value


def folds(text: str) -> int:
    """A number of folds."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError("must be 2 or more")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, metavar="STORE", help="a prediction store of the dataset")
    parser.add_argument("--use", type=Path, metavar="FILE", help="apply this calibration to STORE instead")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the file to write (default: STORE/{CALIBRATION})")
    parser.add_argument("--corpus", metavar="NAME", help="what verdicts call the dataset (default: its folder's name)")
    parser.add_argument("--method", choices=METHODS, default=PAV, help="of the likelihood ratio (%(default)s)")
    parser.add_argument(
        "--false-alarms", type=share, default=0.05, metavar="SHARE", help="real images called forged (%(default)s)"
    )
    parser.add_argument(
        "--misses", type=share, default=0.05, metavar="SHARE", help="forged images not found to be (%(default)s)"
    )
    parser.add_argument(
        "--groups", type=Path, metavar="CSV", help="image_id,group: images to hold out together, such as of a person"
    )
    parser.add_argument("--folds", type=folds, default=5, metavar="N", help="of the held-out check (%(default)s)")
    parser.add_argument(
        "--map-images", type=count, default=2000, metavar="N", help="fakes that set the map's threshold (%(default)s)"
    )
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the held-out check there")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the .safetensors file that made the store")
    parser.add_argument("--attach", type=Path, metavar="FILE", help="write --weights there, with the calibration in it")
    add_dataset(parser)
    return parser


@cli_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.attach is not None and args.weights is None:
        parser.error("--attach needs --weights: the file to copy")
    if args.use is not None:
        return _use(args)
    if args.dataset_root is None:
        parser.error("--dataset-root is needed: which images are real and which are forged")
    from ddl_d2.report.calibrating import Options, calibrate

    store = PredictionStore(args.store)
    options = Options(
        corpus=_name(args),
        method=args.method,
        false_alarm_rate=args.false_alarms,
        miss_rate=args.misses,
        folds=args.folds,
        map_images=args.map_images,
    )
    made, checked = calibrate(
        store,
        dataset_of(args, max_pixels=store.max_pixels),
        options,
        groups=None if args.groups is None else read_groups(args.groups),
        tensors_sha256=_digest(args.weights, store),
    )
    print(_report(made))
    output = args.output or args.store / CALIBRATION
    write_json(output, made.to_json())
    print(f"written to {output} (fingerprint {made.fingerprint})")
    _draw(args, checked, f"Held out: {made.about_corpus}")
    if args.attach is not None:
        attach_calibration(args.weights, made, args.attach)
        print(f"carried by {args.attach}")
    return 0


def _use(args: argparse.Namespace) -> int:
    """Write the verdicts of a store; if its dataset is named, say how they do."""
    from ddl_d2.report.calibrating import corpus_of, write_verdicts
    from ddl_d2.report.held_out import figures_of, judged

    store, made = PredictionStore(args.store), Calibration.load(args.use)
    counts = write_verdicts(store, made, tensors_sha256=_digest(args.weights, store))
    print("\n".join(f"{number:8} {verdict}" for verdict, number in counts.most_common()))
    print(f"written to {args.store / VERDICTS}")
    if args.dataset_root is not None:
        corpus = corpus_of(store, dataset_of(args, max_pixels=store.max_pixels))
        found = judged(made, corpus.labels, corpus.scores)
        fakes = int(corpus.labels.sum())
        print(f"calibrated on {made.about_corpus}; {fakes} forged and {len(corpus.labels) - fakes} real images here:")
        print(_figures(made, figures_of(found)))
        _draw(args, found, f"Calibrated on {made.about_corpus}, tested on {_name(args)}")
    return 0


def _name(args: argparse.Namespace) -> str:
    """What verdicts call the dataset."""
    return args.corpus or " ".join(filter(None, (args.dataset_root.resolve().name, args.split)))


def _draw(args: argparse.Namespace, found: HeldOut, title: str) -> None:
    if args.figure is not None:
        from ddl_d2.report.calibration_figures import draw_calibration

        draw_calibration(found, args.figure, title=title)
        print(f"drawn in {args.figure}")


def _digest(weights: Path | None, store: PredictionStore) -> str:
    """The digest of the tensors of the weights, "" if none are named; CalibrationError if the store is of others."""
    if weights is None:
        return ""
    if file_sha256(weights) != store.meta.get("weights_sha256"):
        raise CalibrationError(f"{store.root}: is not of {weights} (its meta.json has another sha256)")
    return tensors_digest(weights)


def _report(made: Calibration) -> str:
    """The calibration and its held-out check as lines of text."""
    held: dict[str, Any] = dict(made.held_out)
    low, high = made.ratio.limits
    lines = [
        f"corpus: {made.about_corpus}; {made.counts['without_face']} without a face left out",
        f"log10 likelihood ratio ({made.ratio.method}): {low:.2f} to {high:.2f}; temperature {made.temperature:.3g}",
        f"forged above {_limit(made.forged_above)}, no forgery found below {_limit(made.none_below)}",
        "score threshold at false alarms of "
        + ", ".join(f"{_percent(float(rate))}: {value:.4f}" for rate, value in made.thresholds.items()),
    ]
    if made.map_threshold is not None:
        lines.append(
            f"map threshold {made.map_threshold:.3f}: F1 {held['map_f1']:.4f} on the same {held['map_images']} maps, "
            f"{held['map_f1_at_half']:.4f} at 0.5"
        )
    lines += [
        "",
        f"held out, {held['folds']} folds of {made.counts[held['unit']]} {held['unit']}:",
        _figures(made, held),
    ]
    return "\n".join(lines)


def _figures(made: Calibration, held: Mapping[str, Any]) -> str:
    """How verdicts did on images that they were not fitted to, as lines of text."""
    lines = [
        f"  Cllr {held['cllr']:.4f}, Cllr_min {held['cllr_min']:.4f}, devPAV {held['devpav']:.4f}, "
        f"ECE {held['ece']:.4f} "
        f"({held['ece_by_chance']:.4f} if calibrated; by the temperature alone {held['ece_temperature']:.4f})",
        f"  real images called forged     {_shares(held['false_alarms'])} (meant: at most "
        f"{_percent(made.false_alarm_rate)})",
        f"  forged images not found       {_shares(held['misses'])} (meant: at most {_percent(made.miss_rate)})",
        f"  forged images called forged   {_shares(held['found'])}",
        f"  real images, no forgery found {_shares(held['cleared'])}",
        f"  inconclusive                  {_shares(held['inconclusive'])}",
        f"  errors among the others       {_shares(held['errors_among_decided'])}",
    ]
    for rate, alarms in held["false_alarms_at"].items():
        lines.append(
            f"  threshold for {_percent(float(rate)):5} false alarms: {_shares(alarms)}, found "
            f"{_shares(held['found_at'][rate])}"
        )
    return "\n".join(lines)


def _limit(score: float | None) -> str:
    return "no score (too few images for so low a rate)" if score is None else f"{score:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _shares(found: Sequence[float]) -> str:
    if not found:
        return "of none"
    value, low, high = (f"{100 * x:.1f}" for x in found)
    return f"{value} % [{low}, {high}]"


if __name__ == "__main__":
    raise SystemExit(main())
