"""Files that a run could not read: a record of each, and a limit on how many training goes on without."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from detectron2.utils import comm

from ddl_d2.errors import DdlError, ImageReadError

logger = logging.getLogger(__name__)

_LISTED = 20


class BadFile(NamedTuple):
    """A row of a dataset whose image, mask or video cannot be read.

    Attributes:
        row: the row's index in the list of dataset dicts; -1 where that is not known.
        image_id: the row's.
        file: what could not be read.
        reason: why, in words.
    """

    row: int
    image_id: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"

    @classmethod
    def of(cls, index: int, row: Mapping[str, Any], error: ImageReadError) -> BadFile:
        """Make the record from a row's index, its dataset dict, and what opening one of its files raised."""
        return cls(index, str(row.get("image_id", row.get("file_name"))), error.path, error.reason)


class TooManyBadFilesError(DdlError, ValueError):
    """More of the training set cannot be read than training may skip.

    Attributes:
        files: those met so far.
    """

    def __init__(self, message: str, files: Sequence[BadFile] = ()) -> None:
        super().__init__(message)
        self.files = list(files)


class BadFiles:
    """The bad files that training has met, each once however often its row comes up, and the most there may be.

    A rank notes its own with `add`. What is in `agreed` all ranks know, in the same order: `agree`, which all ranks
    call together, puts it there.

    Args:
        num_rows: dataset dicts in the training set.
        max_share: the share of them, in [0, 1], that may be bad; 0 allows none.

    Attributes:
        limit: how many rows may be bad.

    Raises:
        ValueError: `max_share` is no share.
    """

    def __init__(self, *, num_rows: int, max_share: float) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"the share of bad files must be in [0, 1], not {max_share}")
        self.num_rows, self.max_share = num_rows, max_share
        # 0.29 · 100 is 28.999999999999996.
        self.limit = int(max_share * num_rows + 1e-9)
        self._agreed: dict[int, BadFile] = {}
        self._own: dict[int, BadFile] = {}

    def __len__(self) -> int:
        """Count the distinct rows, as far as this rank knows."""
        return len(self._agreed) + len(self._own)

    @property
    def agreed(self) -> list[BadFile]:
        """The bad files that all ranks know, oldest first."""
        return list(self._agreed.values())

    @property
    def has_news(self) -> bool:
        """Whether this rank knows of bad files that the others may not."""
        return bool(self._own)

    def add(self, files: Iterable[BadFile]) -> None:
        """Note the bad files that this rank met, and log those that are new."""
        for bad in files:
            if bad.row not in self._agreed and bad.row not in self._own:
                self._own[bad.row] = bad
                logger.warning("%s is skipped: %s", bad.image_id, bad)

    def agree(self) -> None:
        """Share with all ranks what is new; each has to call this at the same place."""
        news = {bad.row: bad for own in comm.all_gather(list(self._own.values())) for bad in own}
        self._agreed.update(sorted(news.items()))
        self._own.clear()

    def check(self) -> None:
        """Stop if there are too many; called after `agree`, on all ranks or on none.

        Raises:
            TooManyBadFilesError: more are known than there may be.
        """
        if len(self) > self.limit:
            known = [*self._agreed.values(), *self._own.values()]
            raise TooManyBadFilesError(
                f"{len(known)} of the {self.num_rows} rows of the training set cannot be used, and "
                f"DATALOADER.MAX_BAD_SHARE {self.max_share:g} allows {self.limit}: {listed(known)}. "
                "Repair or remove them (ddl-d2 check-dataset --deep finds damaged files and empty masks), or raise "
                "the share",
                known,
            )

    def state_dict(self) -> list[list[Any]]:
        """Return plain values, which the safe loader reads."""
        return [list(bad) for bad in (*self._agreed.values(), *self._own.values())]

    def load_state_dict(self, state: Iterable[Sequence[Any]]) -> None:
        """Replace what is known by what a run knew when it was saved."""
        self._agreed = {int(row): BadFile(int(row), *map(str, rest)) for row, *rest in state}
        self._own.clear()


NO_BAD_FILES = BadFiles(num_rows=0, max_share=0.0)


def listed(files: Sequence[BadFile], limit: int = _LISTED) -> str:
    """List the first `limit` of some bad files, for a message of one line."""
    more = f" and {len(files) - limit} more" if len(files) > limit else ""
    return "; ".join(map(str, files[:limit])) + more
