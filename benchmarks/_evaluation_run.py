"""One evaluation with a store, in a process of its own: what it took and what came of it, as a line of JSON.

Run by `benchmark_evaluation.py`, with the package of one commit or another on the path: it says nothing that only one
of them knows.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddl_d2.checkpoint.loading import build_trained_model
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.utils.malloc import keep_freed_memory


def main() -> None:
    """Evaluate as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    fixed = ["MODEL.DEVICE", "cpu", "DATASETS.DDL_ROOT", args.data, "DATASETS.TEST", "('ddl_i_valid',)"]
    cfg = load_config(args.config_file, [*fixed, "OUTPUT_DIR", str(args.output), *args.opts])
    keep_freed_memory()  # as the command line does
    model = build_trained_model(cfg)
    evaluator = ForgeryTrainer.build_evaluator(cfg, "ddl_i_valid", save_predictions=True)
    before, start = processor_seconds(), time.perf_counter()
    metrics = ForgeryTrainer.test(cfg, model, evaluator)["ddl"]
    gc.collect()  # workers that nobody needs have ended, and count
    wall = time.perf_counter() - start
    store = args.output / "inference/ddl_i_valid/predictions"
    result = {"wall": wall, "cpu": processor_seconds() - before, "metrics": metrics, "predictions": digest(store)}
    print(json.dumps(result), file=sys.__stdout__)


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def digest(store: Path) -> str:
    """Hash the scores, labels and pixels of a store, which do not depend on how its files are packed."""
    digest = hashlib.sha256()
    with open(store / "predictions.csv", encoding="utf-8", newline="") as file:
        for image_id, score, label, _ in csv.reader(file):
            digest.update(f"{image_id},{score},{label}\n".encode())
    for path in sorted((store / "maps").rglob("*.png")):
        digest.update(np.asarray(Image.open(path)).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
