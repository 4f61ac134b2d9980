"""Loaders for training and testing, on Detectron2's, over map-style datasets of dataset dicts.

Each training sample is augmented under a seed made from the run's seed and the sample's position in the global stream.
So the same run gives the same samples, bit for bit, with any number of workers and after any interruption.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ddl_d2.config import ConfigError
from ddl_d2.data.face_crop import LargestFace
from ddl_d2.data.forgery.face_cache import CachedFaceFinder
from ddl_d2.data.forgery.faces import make_finder
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import ClassBalancedSampler, StatefulSampler, TrainingSampler
from ddl_d2.data.self_blending import build_self_blending_mapper

logger = logging.getLogger(__name__)

# A row to a model input; or to a pair of them, where the mapper has `rows_per_sample` 2.
Mapper = Callable[[Mapping[str, Any]], dict[str, Any] | list[dict[str, Any]]]


class TrainStream(IterableDataset):
    """The mapped samples of one rank, from the sampler's position on; each worker makes every n-th batch of it."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]] | Dataset,
        *,
        mapper: Mapper,
        sampler: StatefulSampler,
        batch_size: int,
    ) -> None:
        """
        Args:
            rows: dataset dicts.
            mapper: dataset dict -> model input. It runs with numpy and `random` seeded for the sample.
            sampler: which row stands at which position.
            batch_size: pictures of this rank; samples that are batched together come from one worker.
        """
        self.rows = rows
        self.mapper = mapper
        self.sampler = sampler
        self.samples_per_batch = batch_size // rows_per_sample(mapper)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None:
            _one_opencv_thread()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        sampler = self.sampler
        start = sampler.position + sampler.rank
        for batch in itertools.count(number, workers):
            for sample in range(batch * self.samples_per_batch, (batch + 1) * self.samples_per_batch):
                position = start + sample * sampler.world_size
                with seeded(sampler.seed, position):
                    mapped = self.mapper(self.rows[sampler.index_at(position)])  # type: ignore[index]
                yield from mapped if isinstance(mapped, list) else [mapped]


class TrainLoader:
    """An endless stream of batches (lists of mapper rows) that knows where it is.

    `state_dict` counts the batches handed out, not those that workers have prepared ahead.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]] | Dataset,
        *,
        mapper: Mapper,
        sampler: StatefulSampler,
        total_batch_size: int,
        num_workers: int = 0,
    ) -> None:
        """
        Args:
            rows: dataset dicts.
            mapper: dataset dict -> model input.
            sampler: decides which rows come in which order.
            total_batch_size: pictures per step over all ranks; a multiple of the number of ranks.
            num_workers: processes of this rank; 0 maps in this process.

        Raises:
            ValueError: a batch that the ranks cannot share evenly, or that would tear a pair apart.
        """
        world, pair = comm.get_world_size(), rows_per_sample(mapper)
        if total_batch_size < 1 or total_batch_size % (world * pair):
            of_pairs = f" with {pair} pictures a sample" if pair > 1 else ""
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH {total_batch_size} is not a positive multiple of {world} processes{of_pairs}"
            )
        self.samples_per_step = total_batch_size // pair
        self.sampler = sampler
        self.total_batch_size = total_batch_size
        if num_workers:
            _one_opencv_thread()
        stream = TrainStream(rows, mapper=mapper, sampler=sampler, batch_size=total_batch_size // comm.get_world_size())
        # No grouping by aspect ratio: it would tie the order of samples to the number of workers.
        self._loader = build_detection_train_loader(
            stream,
            mapper=None,
            total_batch_size=total_batch_size,
            aspect_ratio_grouping=False,
            num_workers=num_workers,
        )

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Batches from the current position on. Starting a second iteration continues where the first stopped."""
        for batch in self._loader:
            self.sampler.position += self.samples_per_step
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; takes effect at the next `iter()`. Raises as the sampler's."""
        self.sampler.load_state_dict(state)


def rows_per_sample(mapper: Mapper) -> int:
    """How many model inputs a mapper makes of one dataset dict."""
    return getattr(mapper, "rows_per_sample", 1)


def build_train_loader(cfg: CfgNode, *, mapper: Mapper | None = None) -> TrainLoader:
    """The training loader of a config: DATASETS.TRAIN, INPUT.*, DATALOADER.*, SOLVER.IMS_PER_BATCH, SEED.

    Args:
        cfg: a full config.
        mapper: replaces `ForgeryDatasetMapper(cfg, True)`.

    Raises:
        DatasetError: a dataset cannot be loaded.
        ValueError: pictures without a label, an unknown sampler, one class only for a balanced sampler.
    """
    rows = get_detection_dataset_dicts(list(cfg.DATASETS.TRAIN), filter_empty=False)
    labels = dataset_labels(rows)
    pairs = cfg.INPUT.SELF_BLEND.ENABLED and cfg.INPUT.SELF_BLEND.PAIRS
    if pairs:
        rows, labels = _real_only(rows, labels, cfg.DATASETS.TRAIN)
    unlabelled = int((labels < 0).sum())
    if unlabelled and not pairs:
        names = ", ".join(cfg.DATASETS.TRAIN)
        raise ValueError(f"{names}: {unlabelled} of {len(labels)} pictures have no real/fake label; training needs it")
    return TrainLoader(
        rows,
        mapper=mapper or build_train_mapper(cfg),
        sampler=build_sampler(cfg.DATALOADER.SAMPLER_TRAIN, labels, seed=cfg.SEED if cfg.SEED >= 0 else None),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_train_mapper(cfg: CfgNode) -> Mapper:
    """The training mapper that INPUT.FACE_CROP and INPUT.SELF_BLEND ask for."""
    crop = None
    if cfg.INPUT.FACE_CROP.ENABLED:
        crop = LargestFace(build_face_finder(cfg), margin=cfg.INPUT.FACE_CROP.MARGIN)
    if cfg.INPUT.SELF_BLEND.ENABLED:
        return build_self_blending_mapper(cfg, build_face_finder(cfg), crop=crop)
    return ForgeryDatasetMapper(cfg, True, crop=crop)


def build_face_finder(cfg: CfgNode) -> CachedFaceFinder:
    """The finder of INPUT.FACES.

    Raises:
        ConfigError: an unknown finder.
        FaceFinderUnavailable: a library or model is missing.
    """
    faces = cfg.INPUT.FACES
    try:
        finder = make_finder(
            faces.FINDER, yunet_model=faces.YUNET_MODEL or None, landmark_model=faces.LANDMARK_MODEL or None
        )
    except ValueError as error:
        raise ConfigError(f"INPUT.FACES.FINDER: {error}") from error
    return CachedFaceFinder(finder, face_cache_folder(faces.CACHE))


def face_cache_folder(chosen: str) -> Path:
    """`chosen`, or the user's cache folder."""
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddl_d2" / "faces"


def _real_only(rows: Any, labels: np.ndarray, names: Sequence[str]) -> tuple[Any, np.ndarray]:
    """The pictures to self-blend: all but the fakes. Those without a label are the user's real ones."""
    real = np.flatnonzero(labels != 1)
    if not len(real):
        raise ValueError(f"{', '.join(names)}: no real picture to self-blend (INPUT.SELF_BLEND)")
    if len(real) < len(labels):
        logger.info("self-blending pairs: %d fake pictures of the training set are left out", len(labels) - len(real))
    return torch.utils.data.Subset(rows, real.tolist()), labels[real]


def build_test_loader(cfg: CfgNode, dataset_name: str, *, mapper: Mapper | None = None) -> torch.utils.data.DataLoader:
    """Every picture of a registered dataset once (each rank its share, in order), TEST.BATCH_SIZE at a time."""
    rows = get_detection_dataset_dicts(dataset_name, filter_empty=False)
    if cfg.DATALOADER.NUM_WORKERS:
        _one_opencv_thread()
    return build_detection_test_loader(
        rows,
        mapper=mapper or ForgeryDatasetMapper(cfg, False),
        batch_size=cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_sampler(name: str, labels: np.ndarray, *, seed: int | None) -> StatefulSampler:
    """ "TrainingSampler" or "ClassBalancedSampler" over rows with these labels (0 or 1)."""
    if name == "TrainingSampler":
        return TrainingSampler(len(labels), seed=seed)
    if name == "ClassBalancedSampler":
        return ClassBalancedSampler(labels, seed=seed)
    raise ValueError(f'DATALOADER.SAMPLER_TRAIN {name!r} is neither "TrainingSampler" nor "ClassBalancedSampler"')


def dataset_labels(rows: Any) -> np.ndarray:
    """int8 label of every row: 0 real, 1 fake, -1 unknown."""
    labels = getattr(rows, "labels", None)
    if labels is not None:
        return labels
    parts = getattr(rows, "datasets", None)
    if parts is not None:
        return np.concatenate([dataset_labels(part) for part in parts])
    return np.array([row.get("is_fake", -1) for row in rows], dtype=np.int8)


def _one_opencv_thread() -> None:
    """No thread pool in OpenCV: a worker is one thread (torch sees to itself).

    Called before the workers are forked: a child that inherits a used pool hangs as soon as it touches it.
    """
    if cv2.getNumThreads() > 1:
        cv2.setNumThreads(1)


@contextlib.contextmanager
def seeded(seed: int, position: int) -> Iterator[None]:
    """Seed `np.random` and `random` from the pair, and put their states back afterwards."""
    entropy = np.random.SeedSequence([seed % 2**63, position]).generate_state(8)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(entropy[:4])
    random.seed(entropy[4:].tobytes())
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
