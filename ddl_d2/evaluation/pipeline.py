"""Work on single images that threads do beside the main one: reading, comparing and writing let each other run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class Pipeline:
    """Does pieces of work in threads, and hands what comes of them to the caller's thread, in their order.

    No more pieces are begun than a few for each thread, and no more bytes held by them than 64 MiB: whoever adds one
    waits for the oldest.
    """

    _WAITING, _BYTES = 4, 64 * 2**20

    def __init__(self, threads: int) -> None:
        """Use so many threads, which run while there is work; 0: the caller's."""
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._begun: deque[tuple[Future[Any], Callable[[Any], None], int]] = deque()
        self._held = 0

    def add(self, work: Callable[[], Result], take: Callable[[Result], None], size: int = 0) -> None:
        """Have `work` done, and `take` called with its result, by this or a later call; raises what the work did.

        Args:
            work: called in a thread.
            take: called in the caller's.
            size: bytes that `work` holds.
        """
        if not self._threads:
            take(work())
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "evaluation")
        self._begun.append((self._pool.submit(work), take, size))
        self._held += size
        while self._begun and (self._full() or self._begun[0][0].done()):
            self._take_oldest()

    def _full(self) -> bool:
        return len(self._begun) > self._WAITING * self._threads or self._held > self._BYTES

    def finish(self) -> None:
        """Wait for all work and take its results; raises what it did. No thread is left."""
        try:
            while self._begun:
                self._take_oldest()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Drop what has not begun, and wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None
        self._begun.clear()
        self._held = 0

    def _take_oldest(self) -> None:
        future, take, size = self._begun.popleft()
        self._held -= size
        take(future.result())
