import pytest
import torch
from torch import nn

from ddl_d2.solver.ema import AveragedWeights


def _model(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        model[0].weight.fill_(value)
    return model


def _set(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model[0].weight.fill_(value)


def test_the_average_by_hand():
    model = _model(0.0)
    averaged = AveragedWeights(model, 0.5)
    _set(model, 1.0)
    averaged.update()  # keeps 2/11 of 0
    _set(model, 3.0)
    averaged.update()  # keeps 3/12 of what was
    expected = 0.25 * (9 / 11) + 0.75 * 3.0
    assert averaged.state_dict()["weights"]["0.weight"].item() == pytest.approx(expected)


def test_decay_bounds_what_is_kept():
    model = _model(0.0)
    averaged = AveragedWeights(model, 0.5)
    for _ in range(50):
        averaged.update()
    _set(model, 1.0)
    averaged.update()
    assert averaged.state_dict()["weights"]["0.weight"].item() == pytest.approx(0.5)


def test_in_place_puts_the_own_weights_back_even_after_an_error():
    model = _model(2.0)
    averaged = AveragedWeights(model, 0.9)
    _set(model, 5.0)
    with averaged.in_place():
        assert model[0].weight.item() == 2.0
    assert model[0].weight.item() == 5.0
    with pytest.raises(RuntimeError), averaged.in_place():
        raise RuntimeError
    assert model[0].weight.item() == 5.0


def test_counters_and_running_statistics_are_taken_along():
    model = _model(1.0)
    averaged = AveragedWeights(model, 0.9)
    model(torch.tensor([[1.0], [5.0]]))
    averaged.update()
    weights = averaged.state_dict()["weights"]
    assert weights["1.num_batches_tracked"].item() == 1
    assert weights["1.running_mean"].item() == pytest.approx((9 / 11) * model[1].running_mean.item())


def test_a_saved_state_goes_on_as_if_never_interrupted():
    whole, first = _model(0.0), _model(0.0)
    one, two = AveragedWeights(whole, 0.9), AveragedWeights(first, 0.9)
    for value in (1.0, 2.0, 3.0):
        _set(whole, value)
        one.update()
    for value in (1.0, 2.0):
        _set(first, value)
        two.update()
    resumed = AveragedWeights(first, 0.9)
    resumed.load_state_dict(two.state_dict())
    _set(first, 3.0)
    resumed.update()
    assert torch.equal(one.state_dict()["weights"]["0.weight"], resumed.state_dict()["weights"]["0.weight"])


def test_restart_forgets():
    model = _model(0.0)
    averaged = AveragedWeights(model, 0.9)
    _set(model, 7.0)
    averaged.restart()
    assert averaged.steps == 0
    assert averaged.state_dict()["weights"]["0.weight"].item() == 7.0
