"""Evaluating several datasets, of which some files cannot be read."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from ddl_d2.evaluation.errors import IncompleteEvaluationError

logger = logging.getLogger(__name__)


class OnReadable(nn.Module):
    """`model` for batches with rows that could not be read (`unreadable`): it sees the others, if there are any."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the model's output for each row, and an empty dict for an unreadable one."""
        readable = [row for row in batched_inputs if "unreadable" not in row]
        outputs: Iterator[dict[str, Any]] = iter(self.model(readable) if readable else [])
        return [{} if "unreadable" in row else next(outputs) for row in batched_inputs]


def evaluate_each(names: Sequence[str], evaluate: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Evaluate all datasets, also after one that is incomplete.

    Args:
        names: of the datasets.
        evaluate: takes the number of a dataset in `names`, returns its results.

    Returns:
        Detectron2's dict: the results of a single dataset, or those of each by its name.

    Raises:
        IncompleteEvaluationError: in the end, with all files that could not be read.
    """
    results: dict[str, Any] = OrderedDict()
    incomplete: list[IncompleteEvaluationError] = []
    for number, name in enumerate(names):
        try:
            results[name] = evaluate(number)
        except IncompleteEvaluationError as error:
            logger.error("%s: %s", name, error)
            incomplete.append(error)
    if incomplete:
        raise IncompleteEvaluationError.of(incomplete)
    return next(iter(results.values())) if len(results) == 1 else results
