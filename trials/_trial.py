"""What the trials share: counting what passed, saying what did not, and the exit code."""

from __future__ import annotations

import sys
import time


class Tally:
    """Counts the cases of one trial.

    `check` notes a case and prints it at once if it failed; `finish` prints the last line that every trial has,
    `N passed, M failed`, and gives the exit code.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.passed = 0
        self.failures: list[str] = []
        self._started = time.perf_counter()

    def check(self, good: bool, case: str, detail: object = "") -> bool:
        """Note whether `case` went as it should; `detail` is shown if not. Returns `good`."""
        if good:
            self.passed += 1
        else:
            self.failures.append(f"{case}: {detail}" if detail != "" else case)
            print(f"FAILED {self.failures[-1]}", file=sys.stderr, flush=True)
        return good

    def finish(self) -> int:
        """Print the counts; 0 if nothing failed, else 1."""
        seconds = time.perf_counter() - self._started
        print(f"{self.name}: {self.passed} passed, {len(self.failures)} failed ({seconds:.0f} s)", flush=True)
        return 1 if self.failures else 0
