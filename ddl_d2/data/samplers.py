"""Infinite training samplers that can be stopped and resumed exactly.

A sampler is a function from a position in one global stream to an index of the dataset: position `p` gives the same
index whatever the number of ranks and workers, and nothing before it has to be replayed. Rank `r` of `R` takes the
positions r, r + R, r + 2R, ...

Weights say how many times as often as another a row comes; equal weights change nothing. A stream is made of passes;
each holds as many rows of each weight as its share is (to half a row, at least one), in a new random order.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from ddl_d2.errors import DatasetError


class Share(NamedTuple):
    """Rows of one weight.

    Attributes:
        members: their indices, which are gone through in shuffled passes of their own.
        per_pass: how many of them there are in each pass over all shares.
    """

    members: np.ndarray
    per_pass: int


class StatefulSampler(Sampler[int]):
    """The stream of one rank, from `position` (of the global stream) on.

    Args:
        size: rows in the dataset.
        weights: of every row: how many times as often it comes as a row of weight 1. None: all come equally often.
        seed: the same on every rank; None draws one and shares it.

    Raises:
        DatasetError: no rows.
        ValueError: weights that are not positive numbers, one for each row.
    """

    def __init__(
        self, size: int, *, weights: Sequence[float] | np.ndarray | None = None, seed: int | None = None
    ) -> None:
        if size < 1:
            raise DatasetError("a training set needs at least one image")
        self.size = size
        self.weights = np.ones(size) if weights is None else np.asarray(weights, dtype=np.float64)
        if self.weights.shape != (size,) or not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError(f"weights of images must be positive numbers, one for each of {size} images")
        self.seed = comm.shared_random_seed() if seed is None else int(seed)
        self.position = 0
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self._shuffles: dict[str, tuple[int, np.ndarray]] = {}
        self._places: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}

    def __iter__(self) -> Iterator[int]:
        for position in itertools.count(self.position + self.rank, self.world_size):
            yield self.index_at(position)

    @abstractmethod
    def index_at(self, position: int) -> int:
        """Compute the dataset index at a position of the global stream."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on, plain values."""
        state = {"kind": type(self).__name__, "size": self.size, "seed": self.seed, "position": self.position}
        return state | ({"weights": self._weight_runs()} if np.ptp(self.weights) else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a saved stream: its seed and position replace this sampler's.

        Raises:
            DatasetError: the state is of another sampler, or of a dataset with another number of rows or weights.
        """
        for key, mine in (("kind", type(self).__name__), ("size", self.size)):
            if state[key] != mine:
                raise DatasetError(
                    f"cannot resume the order of training images: {key} was {state[key]}, is now {mine}. "
                    "Resume with the same dataset and DATALOADER.SAMPLER_TRAIN, or start a new run."
                )
        if state.get("weights") != self.state_dict().get("weights"):
            raise DatasetError(
                "cannot resume the order of training images: the weights of their sources are not those of the saved "
                "run. Resume with the same DATASETS.TRAIN and DATASETS.SOURCES, or start a new run."
            )
        self.seed, self.position = int(state["seed"]), int(state["position"])
        self._shuffles.clear()
        self._places.clear()

    def _weight_runs(self) -> list[list[float]]:
        """[number of rows, their weight], for each run of rows of one weight."""
        starts = np.flatnonzero(np.diff(self.weights, prepend=np.nan))
        lengths = np.diff(np.append(starts, self.size))
        return [[int(n), float(self.weights[at])] for n, at in zip(lengths, starts, strict=True)]

    def _shares(self, rows: np.ndarray) -> list[Share]:
        """Indices of the dataset, divided by their weight."""
        found, of_row = np.unique(self.weights[rows], return_inverse=True)
        members = [rows[of_row == number] for number in range(len(found))]
        # Relative to the largest weight: no pass is longer than one over all rows once.
        return [
            Share(one, max(1, round(len(one) * weight / found[-1]))) for one, weight in zip(members, found, strict=True)
        ]

    def _drawn(self, stream: str, shares: Sequence[Share], position: int) -> int:
        """The row at a position of an endless stream of passes, each of which holds `per_pass` rows of each share."""
        if len(shares) == 1:
            return int(shares[0].members[self._shuffled(stream, len(shares[0].members), position)])
        pass_number, offset = divmod(position, sum(share.per_pass for share in shares))
        share_of, rank_of = self._pass_places(stream, shares, pass_number)
        number = int(share_of[offset])
        members, per_pass = shares[number]
        nth = pass_number * per_pass + int(rank_of[offset])
        return int(members[self._shuffled(f"{stream}/{number}", len(members), nth)])

    def _pass_places(self, stream: str, shares: Sequence[Share], pass_number: int) -> tuple[np.ndarray, np.ndarray]:
        """For every place of a pass: which share it belongs to, and how many of that share come before it."""
        cached = self._places.get(stream)
        if cached is None or cached[0] != pass_number:
            share_of = np.repeat(np.arange(len(shares), dtype=np.int32), [share.per_pass for share in shares])
            np.random.default_rng([self.seed, *stream.encode(), *b"/places", pass_number]).shuffle(share_of)
            rank_of = np.empty(len(share_of), dtype=np.int64)
            for number, share in enumerate(shares):
                rank_of[share_of == number] = np.arange(share.per_pass)
            cached = self._places[stream] = (pass_number, share_of, rank_of)
        return cached[1], cached[2]

    def _shuffled(self, stream: str, size: int, position: int) -> int:
        """Element `position` of shuffle(range(size)) + shuffle(range(size)) + ..."""
        epoch, offset = divmod(position, size)
        cached = self._shuffles.get(stream)
        if cached is None or cached[0] != epoch:
            order = np.random.default_rng([self.seed, *stream.encode(), epoch]).permutation(size)
            cached = self._shuffles[stream] = (epoch, order)
        return int(cached[1][offset])


class TrainingSampler(StatefulSampler):
    """Every image once per pass, in a new order each pass; with weights, each as often as its weight says."""

    def __init__(
        self, size: int, *, weights: Sequence[float] | np.ndarray | None = None, seed: int | None = None
    ) -> None:
        super().__init__(size, weights=weights, seed=seed)
        self._all = self._shares(np.arange(size))

    def index_at(self, position: int) -> int:
        """Compute the dataset index at a position of the global stream."""
        return self._drawn("all", self._all, position)


class ClassBalancedSampler(StatefulSampler):
    """Real and fake images equally often.

    The stream is made of pairs, one real and one fake image in random order; each class is gone through in its own
    shuffled passes, so the rarer class is repeated rather than the other dropped. Weights act within a class.

    Args:
        labels: 0 (real) or 1 (fake) of every row.
        weights: see `StatefulSampler`.
        seed: the same on every rank; None draws one and shares it.

    Raises:
        DatasetError: one of the classes is missing, or as `StatefulSampler`.
    """

    _BLOCK = 4096

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray,
        *,
        weights: Sequence[float] | np.ndarray | None = None,
        seed: int | None = None,
    ) -> None:
        labels = np.asarray(labels)
        super().__init__(len(labels), weights=weights, seed=seed)
        self.members = (np.flatnonzero(labels == 0), np.flatnonzero(labels == 1))
        if not all(map(len, self.members)):
            raise DatasetError(
                "ClassBalancedSampler needs real and fake images, the training set has "
                f"{len(self.members[0])} real and {len(self.members[1])} fake. "
                'Use DATALOADER.SAMPLER_TRAIN "TrainingSampler", or add the missing class.'
            )
        self._by_label = tuple(self._shares(members) for members in self.members)

    def index_at(self, position: int) -> int:
        """Compute the dataset index at a position of the global stream."""
        pair, second = divmod(position, 2)
        label = self._first_of_pair(pair) ^ second
        return self._drawn(("real", "fake")[label], self._by_label[label], pair)

    def _first_of_pair(self, pair: int) -> int:
        block, offset = divmod(pair, self._BLOCK)
        cached = self._shuffles.get("coins")
        if cached is None or cached[0] != block:
            coins = np.random.default_rng([self.seed, *b"coins", block]).integers(2, size=self._BLOCK)
            cached = self._shuffles["coins"] = (block, coins)
        return int(cached[1][offset])


class InterleavedSampler(Sampler[int]):
    """Every index once, over all ranks, each rank an even share of every part of the dataset, in its order.

    Datasets list real images before fakes, and one source after another: contiguous shares would be of unlike kinds,
    and take unlike times. Neighbors stay together in small blocks, since they may be frames of one video.

    Args:
        size: rows in the dataset.
    """

    _BLOCK, _LEAST_BLOCKS = 32, 8

    def __init__(self, size: int) -> None:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        block = min(self._BLOCK, max(1, size // (world_size * self._LEAST_BLOCKS)))
        indices = np.arange(size)
        self._own = indices[indices // block % world_size == rank]

    def __iter__(self) -> Iterator[int]:
        yield from self._own.tolist()

    def __len__(self) -> int:
        return len(self._own)
