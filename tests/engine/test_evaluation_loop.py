import time

import torch
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from ddl_d2.data.loader import BatchesOfOneSize
from ddl_d2.engine.evaluation_loop import evaluate_one
from ddl_d2.utils.distributed import patient_group, wait_for_all
from tests.ranks import on_ranks


class _Model(nn.Module):
    def __init__(self, rank=0):
        super().__init__()
        self.rank, self.modes = rank, []

    def forward(self, rows):
        self.modes.append((self.training, torch.is_grad_enabled()))
        if rows[0]["n"] == -1 and self.rank == 1:
            time.sleep(60)
        return [{"fake_score": row["n"]} for row in rows]


class _Sum(DatasetEvaluator):
    def __init__(self):
        self.total = None

    def reset(self):
        self.total = 0

    def process(self, inputs, outputs):
        self.total += sum(output["fake_score"] for output in outputs)

    def evaluate(self):
        wait_for_all()
        return {"total": self.total}


def _loader(numbers):
    return BatchesOfOneSize(torch.utils.data.DataLoader([{"n": n} for n in numbers], batch_size=2, collate_fn=list), 2)


def test_every_row_is_predicted_in_eval_mode_and_the_mode_comes_back():
    model = _Model().train()
    assert evaluate_one(model, _loader(range(5)), _Sum()) == {"total": 10}
    assert model.modes == [(False, False)] * 3
    assert model.training


def _evaluate(rank):
    patient_group()
    return evaluate_one(_Model(rank), _loader([1, 2, -1, -1]), _Sum(), hang_timeout=1.5)


def test_a_rank_that_hangs_ends_and_so_do_the_others():
    start = time.monotonic()
    waited, hung = on_ranks(_evaluate, 2, seconds=40)
    assert hung == "it died, or had to be killed"
    assert "closed" in waited or "reset" in waited, waited
    assert time.monotonic() - start < 45
