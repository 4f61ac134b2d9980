"""How training and evaluation go on where files cannot be read, and what they say of it."""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.engine import HookBase
from torch import nn

from ddl_d2.evaluation.errors import IncompleteEvaluationError
from ddl_d2.io.bad_files import BadFiles

logger = logging.getLogger(__name__)


class BadFileReport(HookBase):
    """Counts what training skipped as the scalar `num_bad_files`, and lists each once in `OUTPUT_DIR/metrics.json`.

    The list is a line of its own whenever there is something new: `iteration`, `num_bad_files` so far, and `bad_files`,
    the new ones with `image_id`, `file` and `reason`. For the main process.
    """

    def __init__(self, bad_files: BadFiles, output_dir: str) -> None:
        self.bad_files = bad_files
        self.path = os.path.join(output_dir, "metrics.json")
        self._listed = 0

    def before_train(self) -> None:
        # A run that is resumed has listed what it knew.
        self._listed = len(self.bad_files.agreed)

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("num_bad_files", len(self.bad_files), smoothing_hint=False)
        self._list_new()

    def after_train(self) -> None:
        # The step that found too many has not come to its end.
        self._list_new()

    def _list_new(self) -> None:
        agreed = self.bad_files.agreed
        if len(agreed) == self._listed:
            return
        new = [{"image_id": b.image_id, "file": b.file, "reason": b.reason} for b in agreed[self._listed :]]
        line = {"iteration": self.trainer.iter, "num_bad_files": len(agreed), "bad_files": new}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
        except OSError as error:
            logger.error("%s: %s. What was skipped is in the log", self.path, error.strerror)
        self._listed = len(agreed)


class OnReadable(nn.Module):
    """`model` for batches with rows that could not be read (`unreadable`): it sees the others, if there are any.

    Where nothing was to be seen, the output is an empty dict.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        readable = [row for row in batched_inputs if "unreadable" not in row]
        outputs: Iterator[dict[str, Any]] = iter(self.model(readable) if readable else [])
        return [{} if "unreadable" in row else next(outputs) for row in batched_inputs]


def for_each_set(names: Sequence[str], test: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """`test(i)` for each of the datasets, also after one that is incomplete; -> Detectron2's dict of results.

    Raises IncompleteEvaluationError, in the end, with all files that could not be read.
    """
    results: dict[str, Any] = OrderedDict()
    incomplete: list[IncompleteEvaluationError] = []
    for number, name in enumerate(names):
        try:
            results[name] = test(number)
        except IncompleteEvaluationError as error:
            logger.error("%s: %s", name, error)
            incomplete.append(error)
    if incomplete:
        raise IncompleteEvaluationError.of(incomplete)
    return next(iter(results.values())) if len(results) == 1 else results


class TolerantEvaluation:
    """An evaluation in the course of a training, which an incomplete one does not end.

    Its metrics are left out: of fewer images they are not comparable, and no best checkpoint may be chosen by them.
    They are in the evaluation's `metrics.json`. What is returned then is `num_unreadable` images, a scalar.
    """

    def __init__(self, evaluate: Callable[[], Any]) -> None:
        self.evaluate = evaluate
        self._last: IncompleteEvaluationError | None = None

    def __call__(self) -> Any:
        try:
            return self.evaluate()
        except IncompleteEvaluationError as error:
            self._last = error
            logger.error("Training goes on, but without the metrics of an evaluation that is incomplete")
            return {"num_unreadable": len(error.files)}

    def check(self) -> None:
        """Raise IncompleteEvaluationError if any was: the run must not end as if all had been scored."""
        if self._last is not None:
            raise self._last
