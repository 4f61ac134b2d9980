"""One examination at a time, a few that wait, and no answer after the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ddl_d2.serve.limits import Limits, RefusedRequestError

Result = TypeVar("Result")


class Work:
    """Runs functions in one thread, in the order in which they come.

    Args:
        limits: how many may wait, and for how long.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="examine")
        self._unfinished = 0

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in the thread.

        Raises:
            RefusedRequestError: 503 where too many wait, or the time is up. A function that is under way then goes on,
                and counts until it ends.
            Exception: what the function raises.
        """
        if self._unfinished > self.limits.waiting:
            raise RefusedRequestError(503, "busy: other files are examined; try again in some seconds")
        self._unfinished += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        future.add_done_callback(self._finished)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.limits.seconds)
        except TimeoutError as error:
            if future.done():
                raise
            future.cancel()
            raise RefusedRequestError(503, f"not done after {self.limits.seconds:g} s: try a smaller file") from error

    def close(self) -> None:
        """Forget what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _finished(self, future: asyncio.Future[Any]) -> None:
        self._unfinished -= 1
        if not future.cancelled():
            future.exception()  # asked for, so that nobody complains that it was not
