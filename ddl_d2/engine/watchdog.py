"""A thread beside the training loop that sees what the loop cannot: a signal while it waits, and that it hangs.

Python runs signal handlers in the main thread, between two of its instructions. A main thread that waits in a
collective for a rank that is gone would never learn of SIGTERM; this thread does, and has the last word.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPED = 128 + signal.SIGTERM
"""Exit code (143) of a run that SIGTERM, or SIGINT (Ctrl-C), ended."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for a stop."""
HUNG = 124
"""Exit code of a rank that made no progress; `timeout` uses the same."""

_POLL = 0.5


class Watch:
    """Inside the context, SIGTERM or Ctrl-C asks for a stop, and neither the stop nor a step may take for ever.

    At such a signal `on_stop` is called (from another thread). The process then has `grace` seconds: a second signal,
    or the end of that time, ends it at once with exit code 143. A SIGINT that the process ignores (one in the
    background, or a rank, whose launcher passes stops on) stays ignored. A step that takes longer than `hang_timeout`
    seconds ends it with exit code 124 and a report of where it was. If multiprocessing started the process, the end of
    its parent ends it, too.
    """

    def __init__(
        self,
        on_stop: Callable[[], None],
        *,
        grace: float,
        hang_timeout: float = 0.0,
        count_signals: bool = True,
        name: str = "this process",
    ) -> None:
        """Prepare a watch, which begins when the context is entered.

        Args:
            on_stop: called once, in the thread of the watch.
            grace: seconds from the first signal.
            hang_timeout: seconds for a `step`; 0: any time.
            count_signals: whether a second one ends the process. Not where a launcher repeats the signals of
                others.
            name: of the process, for what is said on stderr.
        """
        self.on_stop = on_stop
        self.grace = grace
        self.hang_timeout = hang_timeout
        self.count_signals = count_signals
        self.name = name
        self._signals = 0
        self._stop_by: float | None = None
        self._asked = ""
        self._step: tuple[str, float] | None = None
        self._closing = False

    def __enter__(self) -> Watch:
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reading, selectors.EVENT_READ, self._on_signals)
        parent = multiprocessing.parent_process()
        if parent is not None:
            # Ready to be read, for ever, once the parent has ended.
            self._selector.register(parent.sentinel, selectors.EVENT_READ, self._on_orphaned)
        self._main = threading.current_thread()
        self._handlers: dict[signal.Signals, Any] = {}
        if self._main is threading.main_thread():
            # In this order: a signal whose handler is there before the descriptor would be lost.
            self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
            for number in STOP_SIGNALS:
                if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._writing.send(b"\0")
        self._thread.join()
        if self._handlers:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
        self._selector.close()
        self._reading.close()
        self._writing.close()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Limit what is done inside the context to `hang_timeout` seconds; `what` names the work."""
        self._step = (what, time.monotonic())
        try:
            yield
        finally:
            self._step = None

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(_POLL):
                key.data()
            self._check_times()

    def _on_signals(self) -> None:
        # One byte for each signal that has a handler in Python, such as SIGCHLD of data workers.
        for number in self._reading.recv(4096):
            if number in STOP_SIGNALS:
                self._signals += 1
                if self._signals > 1 and self.count_signals:
                    self._end(STOPPED, f"second {_named(number)}: ends without saving")
                if self._stop_by is None:
                    self._stop_by = time.monotonic() + self.grace
                    self._asked = _named(number)
                    if self.count_signals:
                        self._say(f"{self._asked}: ends after this step, which is saved; once more ends it at once")
                    self.on_stop()

    def _on_orphaned(self) -> None:
        self._end(1, "the process that started it is gone")

    def _check_times(self) -> None:
        now = time.monotonic()
        if self._stop_by is not None and now > self._stop_by and not self._closing:
            self._dump()
            self._end(STOPPED, f"no end of the step within {self.grace:g} s of {self._asked}: ends without saving")
        step = self._step
        if self.hang_timeout and step and now > step[1] + self.hang_timeout and step is self._step:
            self._dump()
            self._end(HUNG, f"{step[0]} hangs for {now - step[1]:.0f} s, {self._where()}")

    def _where(self) -> str:
        frame = sys._current_frames().get(self._main.ident or 0)
        if frame is None:
            return "its main thread has ended"
        return f"in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"

    def _dump(self) -> None:
        # To the descriptor: `sys.stderr` may be captured, or held by the thread that hangs.
        faulthandler.dump_traceback(2, all_threads=True)

    def _say(self, what: str) -> None:
        os.write(2, f"{self.name}: {what}\n".encode())

    def _end(self, code: int, why: str) -> None:
        self._say(why)
        os._exit(code)


@contextmanager
def ending_where_it_hangs(seconds: float, name: str) -> Iterator[Callable[[], None]]:
    """End this process with exit code 124 where so long goes by without a call of what is yielded.

    Args:
        seconds: the limit; 0: none.
        name: of what hangs, for what is said on stderr.
    """
    last, over = [time.monotonic()], threading.Event()

    def look() -> None:
        while not over.wait(_POLL):
            if time.monotonic() > last[0] + seconds:
                faulthandler.dump_traceback(2, all_threads=True)
                os.write(2, f"{name} hangs for {seconds:.0f} s\n".encode())
                os._exit(HUNG)

    def goes_on() -> None:
        last[0] = time.monotonic()

    thread = threading.Thread(target=look, name="watch of an evaluation", daemon=True)
    if seconds:
        thread.start()
    try:
        yield goes_on
    finally:
        over.set()
        if seconds:
            thread.join()


def _named(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
