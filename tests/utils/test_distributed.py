import pytest
import torch

from ddl_d2.utils.distributed import any_rank
from tests.ranks import on_ranks


def test_one_process_asks_nobody():
    assert any_rank(True, torch.tensor(0.0), torch.tensor([2])) == (True, False, True)
    assert any_rank() == ()


@pytest.mark.parametrize("nan", [float("nan")])
def test_nan_is_set(nan):
    # A sum that is not finite can be handed over as it is.
    assert any_rank(torch.tensor(nan)) == (True,)


def _rank(rank):
    mine = (rank == 2, torch.tensor(rank == 0), False, torch.tensor([float(rank)]))
    assert any_rank(*mine) == (True, True, False, True)


def test_one_of_three_is_enough():
    assert on_ranks(_rank, 3) == [None] * 3
