"""Infinite training samplers that can be stopped and resumed exactly.

A sampler is a function from a position in one global stream to an index of the dataset: position `p` gives the same
index whatever the number of ranks and workers, and nothing before it has to be replayed. Rank `r` of `R` takes the
positions r, r + R, r + 2R, ...
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler


class StatefulSampler(Sampler[int]):
    """The stream of one rank, from `position` (of the global stream) on."""

    def __init__(self, size: int, *, seed: int | None = None) -> None:
        """
        Args:
            size: rows in the dataset.
            seed: the same on every rank; None draws one and shares it.
        """
        if size < 1:
            raise ValueError("a training set needs at least one picture")
        self.size = size
        self.seed = comm.shared_random_seed() if seed is None else int(seed)
        self.position = 0
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self._shuffles: dict[str, tuple[int, np.ndarray]] = {}

    def __iter__(self) -> Iterator[int]:
        for position in itertools.count(self.position + self.rank, self.world_size):
            yield self.index_at(position)

    @abstractmethod
    def index_at(self, position: int) -> int:
        """The dataset index at a position of the global stream."""

    def state_dict(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, "size": self.size, "seed": self.seed, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a saved stream: its seed and position replace this sampler's.

        Raises:
            ValueError: the state is of another sampler, or of a dataset with another number of rows.
        """
        for key, mine in (("kind", type(self).__name__), ("size", self.size)):
            if state[key] != mine:
                raise ValueError(
                    f"cannot resume the order of training pictures: {key} was {state[key]}, is now {mine}. "
                    "Resume with the same dataset and DATALOADER.SAMPLER_TRAIN, or start a new run."
                )
        self.seed, self.position = int(state["seed"]), int(state["position"])
        self._shuffles.clear()

    def _shuffled(self, stream: str, size: int, position: int) -> int:
        """Element `position` of shuffle(range(size)) + shuffle(range(size)) + ..."""
        epoch, offset = divmod(position, size)
        cached = self._shuffles.get(stream)
        if cached is None or cached[0] != epoch:
            order = np.random.default_rng([self.seed, *stream.encode(), epoch]).permutation(size)
            cached = self._shuffles[stream] = (epoch, order)
        return int(cached[1][offset])


class TrainingSampler(StatefulSampler):
    """Every picture once per pass, in a new order each pass."""

    def index_at(self, position: int) -> int:
        return self._shuffled("all", self.size, position)


class ClassBalancedSampler(StatefulSampler):
    """Real and fake pictures equally often.

    The stream is made of pairs, one real and one fake picture in random order; each class is gone through in its own
    shuffled passes, so the rarer class is repeated rather than the other dropped.
    """

    _BLOCK = 4096

    def __init__(self, labels: Sequence[int] | np.ndarray, *, seed: int | None = None) -> None:
        """
        Args:
            labels: 0 (real) or 1 (fake) of every row.
            seed: the same on every rank; None draws one and shares it.

        Raises:
            ValueError: one of the classes is missing.
        """
        labels = np.asarray(labels)
        super().__init__(len(labels), seed=seed)
        self.members = (np.flatnonzero(labels == 0), np.flatnonzero(labels == 1))
        if not all(map(len, self.members)):
            raise ValueError(
                "ClassBalancedSampler needs real and fake pictures, the training set has "
                f"{len(self.members[0])} real and {len(self.members[1])} fake. "
                'Use DATALOADER.SAMPLER_TRAIN "TrainingSampler", or add the missing class.'
            )

    def index_at(self, position: int) -> int:
        pair, second = divmod(position, 2)
        label = self._first_of_pair(pair) ^ second
        members = self.members[label]
        return int(members[self._shuffled(("real", "fake")[label], len(members), pair)])

    def _first_of_pair(self, pair: int) -> int:
        block, offset = divmod(pair, self._BLOCK)
        cached = self._shuffles.get("coins")
        if cached is None or cached[0] != block:
            coins = np.random.default_rng([self.seed, *b"coins", block]).integers(2, size=self._BLOCK)
            cached = self._shuffles["coins"] = (block, coins)
        return int(cached[1][offset])
