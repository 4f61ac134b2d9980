"""Trial: files that cannot be read are skipped in training up to a share, and never silently in evaluation.

    python trials/bad_data.py [--short]

- loading: of a set of 20 rows a tenth may be bad. {Zero bytes, truncated, text, a folder, missing, not allowed to be
  read; a mask of zero bytes, truncated}, {below, at, above} that limit, with 0 and 2 workers, with and without pairs.
  Below and at it: each bad row is reported once with its name and reason, batches stay full and balanced, and samples
  are the same with any number of workers and after an interruption. Above: TooManyBadFilesError, which lists them.
- training: the smallest Swin-UNet at world sizes 1 and 2, with 0 and 2 workers: metrics.json counts and lists, a
  resumed run goes on counting, weights are the same with any number of workers; above the limit all ranks stop at once.
- evaluation: at world sizes 1 and 2, with 0 and 2 workers, {none, an image, a mask, both, all} bad: what was scored
  equals the list, or IncompleteEvaluationError names all, metrics.json says so and the store is not complete.
- during training: an incomplete evaluation does not end the training, nor give a best checkpoint; but the run fails.
- commands: exit codes, and one line that names the files.

`--short`, for the tests: some of each but the commands.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _bad_loading import loading
from _spoiling import TRAIN, VALID, empty, fresh, spoil, train_config, truncate
from _training import OPTIONS, SWIN_UNET, Process, small_config, train
from _trial import Tally

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.engine.trainer import ForgeryTrainer, distributed
from ddl_d2.errors import StoreError
from ddl_d2.evaluation import IncompleteEvaluationError
from ddl_d2.io.bad_files import TooManyBadFilesError
from ddl_d2.predictions.store import PredictionStore
from tests.conftest import ROOT, make_tiny_set
from tests.ranks import on_ranks


def train_work(rank: int, root: Path, workers: int, steps: int, resume: bool) -> dict[str, Any]:
    """A training, which may be stopped by bad files; -> what this rank saw."""
    logging.disable(logging.CRITICAL)
    changes = ["SOLVER.MAX_ITER", steps, "DATALOADER.NUM_WORKERS", workers, "SOLVER.CHECKPOINT_PERIOD", 4]
    trainer = ForgeryTrainer(train_config(root, *changes))
    trainer.resume_or_load(resume=resume)
    error = None
    try:
        trainer.train()
    except TooManyBadFilesError as stopped:
        error = str(stopped)
    bad = [b.image_id for b in trainer.data_loader.bad_files.agreed]
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    return {"error": error, "iteration": trainer.iter, "bad": bad, "weights": weights}


def metrics_lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root.parent / "output/metrics.json").read_text().splitlines()]


def listed_in(lines: list[dict[str, Any]]) -> list[str]:
    return [b["image_id"] for line in lines for b in line.get("bad_files", [])]


def training_case(world_size: int, workers: int, count: int, template: Path, folder: Path) -> tuple[str, Any]:
    """Return what is wrong ("" if nothing), and the weights in the end."""
    root = fresh(template, folder)
    bad = spoil(root, "train", "truncated", count)
    results = on_ranks(train_work, world_size, root, workers, 8, False)
    if any(isinstance(result, str) for result in results):
        return f"{results}", None
    first = results[0]
    lines = metrics_lines(root)
    listed = listed_in(lines)
    if any(result["bad"] != first["bad"] or result["iteration"] != first["iteration"] for result in results):
        return "the ranks do not agree", None
    if sorted(listed) != sorted(first["bad"]) or max(line["num_bad_files"] for line in lines) != len(listed):
        return f"metrics.json lists {listed}, the loader {first['bad']}", None
    if count > 2:
        stopped = all(result["error"] for result in results) and first["iteration"] < 8
        complete = len(listed) == 3 and all(Path(name).name in first["error"] for name in listed)
        saved = (root.parent / "output/model_final.pth").exists()
        return ("" if stopped and complete and not saved else f"{first}"), None
    if set(listed) != set(bad) or any(result["error"] for result in results):
        return f"of {sorted(bad)}, metrics.json lists {listed}; {first['error']}", None
    for name in ("model_final.pth", "model_0000007.pth"):
        (root.parent / "output" / name).unlink()
    resumed = on_ranks(train_work, world_size, root, workers, 8, True)[0]  # from iteration 3 on
    again = listed_in(metrics_lines(root)[len(lines) :])
    if resumed["bad"] != first["bad"] or again != listed_in([line for line in lines if line["iteration"] > 3]):
        return f"resumed: it lists {again}", None
    same = all(torch.equal(resumed["weights"][name], value) for name, value in first["weights"].items())
    return ("" if same else "the resumed run came to other weights"), first["weights"]


def training(tally: Tally, short: bool, template: Path, folder: Path) -> None:
    for world_size in (1, 2):
        ends = []
        for workers, count in itertools.product((0, 2), (1, 2, 3)):
            if short and (workers, count) != ((2, 2) if world_size == 1 else (0, 3)):
                continue
            problem, weights = training_case(world_size, workers, count, template, folder)
            name = f"training, world size {world_size}, {workers} workers, {count} bad of 2 allowed"
            tally.check(not problem, name, problem)
            if count == 2 and weights is not None:
                ends.append(weights)
        if len(ends) == 2:
            same = all(torch.equal(ends[1][name], value) for name, value in ends[0].items())
            tally.check(same, f"training, world size {world_size}: workers do not change the weights")


def evaluate_work(rank: int, root: Path, workers: int, weights: Path) -> tuple[str, list[str]]:
    """An evaluation as --eval-only has it; -> (name of the error, ids of its files)."""
    logging.disable(logging.CRITICAL)
    changes = ["DATASETS.TEST", "('ddl_i_valid',)", "MODEL.WEIGHTS", weights, "DATALOADER.NUM_WORKERS", workers]
    cfg = small_config(root, root.parent / "output", "TEST.BATCH_SIZE", 2, *changes)
    evaluator = ForgeryTrainer.build_evaluator(cfg, "ddl_i_valid", save_predictions=True)
    try:
        ForgeryTrainer.test(cfg, distributed(build_trained_model(cfg)), evaluator)
    except IncompleteEvaluationError as error:
        return str(error), [bad.image_id for bad in error.files]
    return "", []


def evaluation_case(world_size: int, workers: int, what: str, template: Path, weights: Path, folder: Path) -> str:
    root = fresh(template, folder)
    bad: dict[str, str] = {}
    if what in ("an image", "both"):
        bad |= spoil(root, "valid", "truncated", 1)
    if what in ("a mask", "both"):
        empty(root / "valid/masks/2.png")
        bad["fake/2.png"] = "is empty"
    if what == "all":
        bad |= {f"{kind}/{n}.png": "" for kind in ("real", "fake") for n in range(VALID)}
        for path in [*(root / "valid/real").iterdir(), *(root / "valid/fake").iterdir()]:
            truncate(path)
    results = on_ranks(evaluate_work, world_size, root, workers, weights)
    output = root.parent / "output/inference/ddl_i_valid"
    if any(result != results[0] for result in results) or results[0][1] != sorted(bad):
        return f"{results}"
    metrics = json.loads((output / "metrics.json").read_text())
    unreadable = {b["image_id"]: b["reason"] for b in metrics.get("unreadable", [])}
    if metrics["complete"] == bool(bad) or set(unreadable) != set(bad) or metrics["num_images"] != 2 * VALID - len(bad):
        return f"metrics.json says {metrics}"
    if any(bad[name] not in reason for name, reason in unreadable.items()):
        return f"reasons {unreadable}"
    try:
        ids = PredictionStore(output / "predictions").ids
    except StoreError:
        return "" if bad else "the store is not complete"
    return f"the store looks complete, with {len(ids)}" if bad else ""


def evaluation(tally: Tally, short: bool, template: Path, weights: Path, folder: Path) -> None:
    whats = ("none", "an image", "a mask", "both", "all")
    for world_size, workers, what in itertools.product((1, 2), (0, 2), whats):
        if short and (world_size, workers, what) not in ((1, 2, "both"), (2, 0, "an image")):
            continue
        problem = evaluation_case(world_size, workers, what, template, weights, folder)
        tally.check(not problem, f"evaluation, world size {world_size}, {workers} workers, {what} bad", problem)


def evaluating_work(rank: int, root: Path, good_root: Path) -> dict[str, Any]:
    """A training with an evaluation at step 2 and at its end."""
    logging.disable(logging.CRITICAL)
    changes = ["DATASETS.TEST", "('ddl_i_valid',)", "TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 4]
    trainer = ForgeryTrainer(train_config(root, *changes))
    error = None
    try:
        trainer.train()
    except IncompleteEvaluationError as incomplete:
        error = [bad.image_id for bad in incomplete.files]
    return {"error": error, "iteration": trainer.iter}


def during_training(tally: Tally, short: bool, template: Path, folder: Path) -> None:
    for world_size, count in itertools.product((1, 2), (0, 1)):
        if short and (world_size, count) != (2, 1):
            continue
        root = fresh(template, folder)
        bad = sorted(spoil(root, "valid", "truncated", count))
        results = on_ranks(evaluating_work, world_size, root, template)
        names = {path.name for path in (root.parent / "output").iterdir()}
        good = all(result == {"error": bad or None, "iteration": 4} for result in results)
        good &= "model_final.pth" in names and ("model_best.pth" in names) == (count == 0)
        if good:
            lines = metrics_lines(root)
            good &= max(line.get("num_unreadable", 0) for line in lines) == count
            good &= any("ddl/final" in line for line in lines) == (count == 0)
        name = f"evaluation during training, world size {world_size}, {count} bad"
        tally.check(good, name, f"{results}, {sorted(names)}")


def command(root: Path, log: Path, *flags_and_options: object) -> tuple[int | None, str]:
    """tools/train_net.py, forked: (exit code, what it said)."""
    common = ["--config-file", ROOT / SWIN_UNET, *[w for w in flags_and_options if str(w).startswith("--")], *OPTIONS]
    common += ["DATASETS.DDL_ROOT", root, "OUTPUT_DIR", root.parent / "output", "INPUT.SELF_BLEND.ENABLED", "False"]
    common += [word for word in flags_and_options if not str(word).startswith("--")]
    process = Process.fork(lambda: train([str(word) for word in common]), log)
    code = process.wait(120)
    return code, process.text()


def commands(tally: Tally, template: Path, weights: Path, folder: Path) -> None:
    root = fresh(template, folder)
    spoil(root, "valid", "truncated", 1)
    options = ("DATASETS.TEST", "('ddl_i_valid',)", "MODEL.WEIGHTS", weights)
    code, said = command(root, root.parent / "log", "--eval-only", *options)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    good = code == 2 and len(errors) == 1 and "valid/fake/1.png" in errors[0] and "1 of 6 images" in errors[0]
    tally.check(good, "command, --eval-only", f"exit code {code}: {said[-800:]}")
    root = fresh(template, folder)
    spoil(root, "train", "mask truncated", 1)
    code, said = command(root, root.parent / "log", "SOLVER.MAX_ITER", "12", "DATALOADER.MAX_BAD_SHARE", "0.0")
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    good = code == 2 and len(errors) == 1 and "train/masks/1.png" in errors[0]
    tally.check(good, "command, a training that may skip nothing", f"exit code {code}: {said[-800:]}")


def make_weights(rank: int, template: Path, folder: Path) -> None:
    logging.disable(logging.CRITICAL)
    ForgeryTrainer(small_config(template, folder / "weights", "SOLVER.MAX_ITER", 1)).train()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some of the cases, for the tests")
    args = parser.parse_args()
    tally = Tally("bad data")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["DDL_D2_CACHE"] = str(place / "cache")
        template = make_tiny_set(place / "template", train=TRAIN, valid=VALID)
        loading(tally, args.short, template, place)
        training(tally, args.short, template, place)
        on_ranks(make_weights, 1, template, place)
        weights = place / "weights/model_final.pth"
        evaluation(tally, args.short, template, weights, place)
        during_training(tally, args.short, template, place)
        if not args.short:
            commands(tally, template, weights, place)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
