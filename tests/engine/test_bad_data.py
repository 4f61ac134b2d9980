"""How training and evaluation go on over bad files; trials/bad_data.py has whole runs."""

import json
import logging
import types

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from ddl_d2.engine.evaluation_loop import OnReadable, evaluate_each
from ddl_d2.engine.hooks.evaluation import TolerantEvaluation
from ddl_d2.engine.hooks.reports import BadFileReport
from ddl_d2.errors import ImageReadError
from ddl_d2.evaluation import IncompleteEvaluationError
from ddl_d2.io.bad_files import BadFile, BadFiles


def bad(row):
    return BadFile(row, f"{row}.png", f"set/{row}.png", "is empty (0 bytes)")


def incomplete(*rows, total=10, where=""):
    return IncompleteEvaluationError([bad(row) for row in rows], total, where)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batch):
        self.seen.append([row["image_id"] for row in batch])
        return [{"fake_score": len(row["image_id"])} for row in batch]


def test_a_model_sees_what_could_be_read():
    model = Model().eval()
    wrapped = OnReadable(model)
    assert not wrapped.training
    error = ImageReadError("x", "is broken")
    batch = [{"image_id": "a"}, {"image_id": "b", "unreadable": error}, {"image_id": "ccc"}]
    assert wrapped(batch) == [{"fake_score": 1}, {}, {"fake_score": 3}]
    assert wrapped(batch[1:2]) == [{}]
    assert model.seen == [["a", "ccc"]]


def test_metrics_json_counts_and_lists(tmp_path):
    files = BadFiles(num_rows=100, max_share=0.1)
    files.add([bad(7)])
    files.agree()
    hook = BadFileReport(files, str(tmp_path))
    hook.trainer = types.SimpleNamespace(iter=0)
    hook.before_train()  # 7 is known from before a resumption
    with EventStorage() as storage:
        hook.trainer.storage = storage
        for iteration, rows in enumerate([[], [3, 4], []]):
            hook.trainer.iter = iteration
            files.add(map(bad, rows))
            files.agree()
            hook.after_step()
        assert storage.latest()["num_bad_files"][0] == 3
    files.add([bad(5)])
    files.agree()
    hook.trainer.iter = 3
    hook.after_train()  # the step that found too many
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [(line["iteration"], line["num_bad_files"]) for line in lines] == [(1, 3), (3, 4)]
    assert [[b["image_id"] for b in line["bad_files"]] for line in lines] == [["3.png", "4.png"], ["5.png"]]
    assert lines[1]["bad_files"][0] == {"image_id": "5.png", "file": "set/5.png", "reason": "is empty (0 bytes)"}


def test_all_sets_are_evaluated_before_an_incomplete_one_counts():
    assert evaluate_each(["a"], lambda i: {"ddl": i}) == {"ddl": 0}
    assert evaluate_each(["a", "b"], lambda i: {"ddl": i}) == {"a": {"ddl": 0}, "b": {"ddl": 1}}
    done = []

    def test(number):
        done.append(number)
        if number != 1:
            raise incomplete(number, total=5)
        return {}

    with pytest.raises(IncompleteEvaluationError, match=r"2 of 10 images .*set/0\.png: .*; set/2\.png") as caught:
        evaluate_each(["a", "b", "c"], test)
    assert done == [0, 1, 2]
    assert [b.row for b in caught.value.files] == [0, 2]


def test_an_incomplete_evaluation_does_not_end_a_training_but_its_success(caplog):
    results = iter([{"ddl": {"final": 0.5}}, incomplete(1, 2), {"ddl": {"final": 0.7}}])

    def evaluate():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    evaluation = TolerantEvaluation(evaluate)
    assert evaluation() == {"ddl": {"final": 0.5}}
    evaluation.check()
    with caplog.at_level(logging.ERROR):
        assert evaluation() == {"num_unreadable": 2}
    assert "without the metrics" in caplog.text
    assert evaluation() == {"ddl": {"final": 0.7}}
    with pytest.raises(IncompleteEvaluationError, match="2 of 10"):
        evaluation.check()


def test_other_errors_of_an_evaluation_are_not_swallowed():
    def evaluate():
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        TolerantEvaluation(evaluate)()
