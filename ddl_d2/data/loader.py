"""The endless stream of training batches.

Samples are the same, bit for bit, with any number of workers and after any interruption: each is augmented under a
seed made from the run's seed and the sample's position in the global stream. So is what stands in for a file that
cannot be read.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.data import build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ddl_d2.data.samplers import StatefulSampler
from ddl_d2.errors import ConfigError, ImageReadError
from ddl_d2.io.bad_files import BadFile, BadFiles, TooManyBadFilesError, listed
from ddl_d2.utils.processes import guarded
from ddl_d2.utils.shared_memory import explained_shared_memory

# A row to a model input; or to a pair of them, where the mapper has `rows_per_sample` 2.
Mapper = Callable[[Mapping[str, Any]], dict[str, Any] | list[dict[str, Any]]]

MAX_DRAWS = 100
"""How many rows are tried for one sample."""

# Under which key a training row carries the bad files met on the way to it, from a worker to the loader.
_REPORT = "bad_files"


class TrainStream(IterableDataset):
    """The mapped samples of one rank, from the sampler's position on; each worker makes every n-th batch of it.

    Where a row cannot be used (its image or mask cannot be read, or nothing in it can be forged), another row of its
    class takes its place, and the sample carries what was bad. Where none of `MAX_DRAWS` rows could be used it carries
    nothing else.

    Args:
        rows: dataset dicts.
        mapper: dataset dict -> model input. It runs with numpy and `random` seeded for the sample.
        sampler: which row stands at which position.
        batch_size: images of this rank; samples that are batched together come from one worker.
        labels: the class of every row; None: all are of one class.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]] | Dataset,
        *,
        mapper: Mapper,
        sampler: StatefulSampler,
        batch_size: int,
        labels: np.ndarray | None = None,
    ) -> None:
        self.rows = rows
        self.mapper = mapper
        self.sampler = sampler
        self.labels = labels
        self.samples_per_batch = batch_size // rows_per_sample(mapper)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None:
            one_opencv_thread()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        sampler = self.sampler
        start = sampler.position + sampler.rank
        for batch in itertools.count(number, workers):
            for sample in range(batch * self.samples_per_batch, (batch + 1) * self.samples_per_batch):
                yield from self._sample(start + sample * sampler.world_size)

    def _sample(self, position: int) -> list[dict[str, Any]]:
        """The model inputs at a position of the global stream."""
        seed, index = self.sampler.seed, self.sampler.index_at(position)
        bad: list[BadFile] = []
        for draw in range(MAX_DRAWS):
            row = self.rows[index]  # type: ignore[index]
            try:
                with seeded(seed, position):
                    mapped = self.mapper(row)
            except ImageReadError as error:
                bad.append(BadFile.of(index, row, error))
                index = self._another(index, np.random.default_rng([seed % 2**63, position, draw]))
                continue
            sample = mapped if isinstance(mapped, list) else [mapped]
            if bad:
                sample[0][_REPORT] = bad
            return sample
        return [{_REPORT: bad} for _ in range(rows_per_sample(self.mapper))]

    def _another(self, index: int, generator: np.random.Generator) -> int:
        """A row of the class of `index`, each as likely."""
        if self.labels is None:
            return int(generator.integers(self.sampler.size))
        return int(generator.choice(np.flatnonzero(self.labels == self.labels[index])))


class TrainLoader:
    """An endless stream of batches (lists of mapper rows) that knows where it is, and what it could not read.

    `state_dict` counts the batches handed out, not those that workers have prepared ahead.

    Args:
        rows: dataset dicts.
        mapper: dataset dict -> model input.
        sampler: decides which rows come in which order.
        total_batch_size: images per step over all ranks; a multiple of the number of ranks.
        num_workers: processes of this rank; 0 maps in this process.
        labels: the class of every row, which is kept where another stands in for it; None: any row may.
        max_bad_share: the share of `rows` that may be unusable, in [0, 1].
        worker_timeout: seconds to wait for a batch of the workers before RuntimeError is raised; 0 waits forever.
        parts: equal parts of each rank's batch, none of which may tear a pair apart.
        pinned: whether images come in pinned memory, for a GPU; see `guarded`.

    Attributes:
        bad_files: what was bad in the batches handed out. A single process stops where that is more than it may be. Of
            several none may stop alone: there the training loop calls `bad_files.agree` and `check`.

    Raises:
        ConfigError: a batch that the ranks cannot share evenly, or that would tear a pair apart.
        ValueError: `max_bad_share` is no share.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]] | Dataset,
        *,
        mapper: Mapper,
        sampler: StatefulSampler,
        total_batch_size: int,
        num_workers: int = 0,
        labels: np.ndarray | None = None,
        max_bad_share: float = 0.0,
        worker_timeout: float = 0.0,
        parts: int = 1,
        pinned: bool = False,
    ) -> None:
        world, pair = comm.get_world_size(), rows_per_sample(mapper)
        if total_batch_size < 1 or total_batch_size % (world * pair * parts):
            of_parts = f" times {parts} parts (SOLVER.ACCUMULATION_PARTS)" if parts > 1 else ""
            of_pairs = f" with {pair} images a sample" if pair > 1 else ""
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {total_batch_size} is not a positive multiple of {world} processes"
                f"{of_parts}{of_pairs}"
            )
        self.samples_per_step = total_batch_size // pair
        self.sampler = sampler
        self.total_batch_size = total_batch_size
        self.bad_files = BadFiles(num_rows=sampler.size, max_share=max_bad_share)
        if num_workers:
            one_opencv_thread()
        stream = TrainStream(rows, mapper=mapper, sampler=sampler, batch_size=total_batch_size // world, labels=labels)
        # No grouping by aspect ratio: it would tie the order of samples to the number of workers.
        loader = build_detection_train_loader(
            stream,
            mapper=None,
            total_batch_size=total_batch_size,
            aspect_ratio_grouping=False,
            num_workers=num_workers,
        )
        self._loader = guarded(loader, worker_timeout, pinned=pinned)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Give batches from the current position on; a second iteration continues where the first stopped.

        Raises:
            TooManyBadFilesError: see the class; on several ranks only where nothing can stand in for what is bad.
            InputError: shared memory is too small for the workers' batches.
        """
        batches = iter(self._loader)
        while True:
            with explained_shared_memory():
                batch = next(batches)
            self.sampler.position += self.samples_per_step
            reports = [row.pop(_REPORT, []) for row in batch]
            self.bad_files.add(bad for report in reports for bad in report)
            if comm.get_world_size() == 1:
                self.bad_files.agree()
                self.bad_files.check()
            if not all(batch):
                bad = list({bad.row: bad for bad in reports[batch.index({})]}.values())
                raise TooManyBadFilesError(
                    f"none of {MAX_DRAWS} rows drawn for one training sample can be used: {listed(bad)}", bad
                )
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on, plain values."""
        return self.sampler.state_dict() | {"bad_files": self.bad_files.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; takes effect at the next `iter()`. Raises as the sampler's."""
        self.sampler.load_state_dict(state)
        # Checkpoints of earlier versions do not list them.
        self.bad_files.load_state_dict(state.get("bad_files", []))


def rows_per_sample(mapper: Mapper) -> int:
    """Tell how many model inputs a mapper makes of one dataset dict."""
    return getattr(mapper, "rows_per_sample", 1)


def one_opencv_thread() -> None:
    """Switch OpenCV's thread pool off: a worker is one thread (torch sees to itself).

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


class BatchesOfOneSize:
    """The rows of a loader, put into batches of images that need no padding to share one.

    A batch is complete as soon as there are enough images of its size. So that rows do not pile up, the largest begun
    is handed out as it is where too many are held.

    Args:
        loader: gives lists of testing rows.
        batch_size: rows of a batch.
    """

    _CELL, _HELD = 32, 8

    def __init__(self, loader: DataLoader, batch_size: int) -> None:
        self.loader = loader
        self.batch_size = batch_size

    @property
    def num_rows(self) -> int:
        """How many rows this rank sees."""
        return len(self.loader.sampler)  # type: ignore[arg-type]  # one that has a length

    def __len__(self) -> int:
        """Count the batches there are at least."""
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        begun: dict[Any, list[dict[str, Any]]] = {}
        held = 0
        for row in itertools.chain.from_iterable(self.loader):
            batch = begun.setdefault(self._size(row), [])
            batch.append(row)
            held += 1
            if len(batch) < self.batch_size and held > self._HELD * self.batch_size:
                batch = max(begun.values(), key=len)
            if len(batch) == self.batch_size or held > self._HELD * self.batch_size:
                held -= len(batch)
                yield begun.pop(self._size(batch[0]))
        yield from begun.values()

    def _size(self, row: dict[str, Any]) -> Any:
        """Return what rows have in common that share a batch; those without an image share one, too."""
        if "image" not in row:
            return None
        return tuple(-(-side // self._CELL) for side in row["image"].shape[-2:])
