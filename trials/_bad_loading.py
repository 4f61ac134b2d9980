"""The part of `bad_data.py` that loads: no training, only batches."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from _spoiling import KINDS, SHARE, fresh, spoil, train_config
from _trial import Tally
from detectron2.data import DatasetCatalog

from ddl_d2.data.build import build_train_loader
from ddl_d2.data.loader import TrainLoader
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import ClassBalancedSampler
from ddl_d2.io.bad_files import TooManyBadFilesError


class PairMapper(ForgeryDatasetMapper):
    """As a self-blending mapper has it: two model inputs of a row."""

    rows_per_sample = 2

    def __call__(self, row: Any) -> list[dict[str, Any]]:  # type: ignore[override]
        mapped = super().__call__(row)
        return [{**mapped, "half": 0}, {**mapped, "half": 1}]


def loader_of(cfg: Any, pairs: bool) -> TrainLoader:
    if not pairs:
        return build_train_loader(cfg)
    rows = DatasetCatalog.get("ddl_i_train")
    labels = [row["is_fake"] for row in rows]
    return TrainLoader(
        rows,
        mapper=PairMapper(cfg, True),
        sampler=ClassBalancedSampler(labels, seed=cfg.SEED),
        total_batch_size=4,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        labels=torch.tensor(labels).numpy(),
        max_bad_share=SHARE,
    )


def fingerprint(batches: Sequence[list[dict]]) -> list[tuple[str, int]]:
    return [(row["image_id"], int(row["image"].long().sum())) for batch in batches for row in batch]


def loading_case(kind: str, count: int, pairs: bool, root: Path) -> str:
    """What is wrong about loading a set with `count` bad rows; "" if nothing."""
    configs = {workers: train_config(root, "DATALOADER.NUM_WORKERS", workers) for workers in (0, 2)}
    # Before anything is bad: what is missing from the beginning is no row at all.
    loaders = {workers: [loader_of(cfg, pairs) for _ in range(3)] for workers, cfg in configs.items()}
    bad = spoil(root, "train", kind, count)
    known: list[list[tuple[str, int]]] = []
    for workers, (loader, again, whole) in loaders.items():
        batches: list[list[dict]] = []
        try:
            batches += islice(loader, 16)  # more than two passes
        except TooManyBadFilesError as error:
            if count <= 2:
                return f"stopped: {error}"
            met = {b.image_id for b in error.files}
            if len(met) != 3 or not met <= set(bad) or any(b.file not in str(error) for b in error.files):
                return f"of {sorted(bad)} it lists {error}"
            continue
        if count > 2:
            return "not stopped"
        again.load_state_dict(loader.state_dict())
        batches += islice(again, 2)
        problem = wrong_batches(batches, bad, pairs) or wrong_reports(loader, bad)
        if problem:
            return f"{workers} workers: {problem}"
        known += [fingerprint(batches), fingerprint(list(islice(whole, 18)))]
    return "" if all(one == known[0] for one in known) else "workers or an interruption change the samples"


def wrong_batches(batches: list[list[dict]], bad: dict[str, str], pairs: bool) -> str:
    for batch in batches:
        if len(batch) != 4 or sum(row["is_fake"] for row in batch) != 2:
            return f"a batch of {[row['image_id'] for row in batch]}"
        if pairs and any(a["image_id"] != b["image_id"] for a, b in zip(batch[::2], batch[1::2], strict=True)):
            return "a pair is torn"
        if any(row["image_id"] in bad or "bad_files" in row for row in batch):
            return "a bad row was handed out"
    return ""


def wrong_reports(loader: TrainLoader, bad: dict[str, str]) -> str:
    found = {b.image_id: b for b in loader.bad_files.agreed}
    if set(found) != set(bad) or len(loader.bad_files) != len(bad):
        return f"of {sorted(bad)} it reports {loader.bad_files.agreed}"
    wrong = [b for name, b in found.items() if bad[name] not in b.reason or Path(b.file).name != Path(name).name]
    return f"reported as {wrong}" if wrong else ""


def loading(tally: Tally, short: bool, template: Path, folder: Path) -> None:
    kinds = [kind for kind in KINDS if kind != "not allowed" or os.geteuid() != 0]
    if short:
        kinds = ["truncated", "mask of zero bytes"]
    for kind, count, pairs in itertools.product(kinds, (1, 2, 3), (False, True)):
        if short and pairs != (count == 2):
            continue
        problem = loading_case(kind, count, pairs, fresh(template, folder))
        tally.check(not problem, f"loading, {kind}, {count} bad of 2 allowed{', pairs' if pairs else ''}", problem)
