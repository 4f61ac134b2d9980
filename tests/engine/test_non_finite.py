"""Numbers that are not finite stop a step before its update; trials/non_finite.py has whole trainings."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from ddl_d2.engine.non_finite import SMALLEST_LOSS_SCALE, StepGuard
from ddl_d2.engine.step import TrainingStep
from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.errors import NonFiniteError
from tests.conftest import ROOT

BATCH = [{"image_id": "fake/a.png"}, {"file_name": "real/b.png"}]


class Model(nn.Module):
    """The loss is w · x; its gradient x."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.norm = nn.BatchNorm1d(2)

    def forward(self, batch):
        return {"loss": self.weight.sum()}


def make_step(tmp_path, precision="float32"):
    model = Model()
    optimizer = torch.optim.SGD([model.weight], 0.1)
    step = TrainingStep(
        model, [BATCH], optimizer, precision=precision, stopped_steps=str(tmp_path), config="VERSION: 2"
    )
    step.iter = 4
    step._write_metrics = lambda *args: None
    return model, step


@pytest.mark.parametrize(
    ("gradient", "what"),
    [
        ([float("nan"), 1.0], "the gradient of weight"),
        ([1.0, -float("inf")], "the gradient of weight"),
        # 2 · (3e19)² = 1.8e39 is more than float32 holds (3.4e38).
        ([3e19, 3e19], "the norm of all gradients"),
    ],
)
def test_a_gradient(gradient, what, tmp_path):
    model, step = make_step(tmp_path)
    model.weight.register_hook(lambda g: torch.tensor(gradient))
    with pytest.raises(NonFiniteError, match=rf"{what} at iteration 4 is not finite; images: fake/a\.png, real/b") as e:
        step.run_step()
    assert model.weight.tolist() == [1.0, 1.0]
    assert e.value.image_ids == ["fake/a.png", "real/b.png"]
    assert str(tmp_path / "iter_4_rank0.pth") in str(e.value)
    stopped = StoppedStep.load(tmp_path / "iter_4_rank0.pth")
    assert (stopped.what, stopped.losses, stopped.config) == ([what], {"loss": 2.0}, "VERSION: 2")


def test_a_running_statistic(tmp_path):
    model, step = make_step(tmp_path)
    model.norm.running_var[1] = float("inf")
    with pytest.raises(NonFiniteError, match=r"the running statistic norm\.running_var at iteration 4"):
        step.run_step()


def test_large_but_finite_numbers_pass(tmp_path):
    model, step = make_step(tmp_path)
    model.weight.register_hook(lambda g: torch.tensor([1e19, 1.0]))  # squared 1e38
    step.run_step()
    assert model.weight.tolist() == pytest.approx([-1e18, 0.9])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_hide_it(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    model, step = make_step(blocked / "failures")
    model.weight.register_hook(lambda g: g * float("nan"))
    with pytest.raises(NonFiniteError, match=r"gradient of weight .*The step could not be kept"):
        step.run_step()
    assert "not kept" in caplog.text


class _Scaler:
    """Loss scaling as float16 has it, at a given scale (torch's own needs a GPU)."""

    def __init__(self, scale):
        self.scale = scale

    def is_enabled(self):
        return True

    def get_scale(self):
        return self.scale


@pytest.mark.parametrize(("scale", "bad"), [(65536.0, False), (SMALLEST_LOSS_SCALE, False), (2.0**-15, True)])
def test_float16_overflows_are_for_the_loss_scale_until_it_can_fall_no_more(scale, bad):
    model = Model()
    guard = StepGuard(model, torch.optim.SGD([model.weight], 0.1), _Scaler(scale))
    model.weight.grad = torch.tensor([float("inf"), 1.0])
    assert bool(guard.non_finite(torch.tensor(1.0))) == bad
    assert bool(guard.non_finite(torch.tensor(float("nan"))))


def test_parameters_without_gradient_or_training_are_left_out():
    model = Model()
    guard = StepGuard(model, torch.optim.SGD([model.weight], 0.1), torch.amp.GradScaler("cpu", enabled=False))
    model.norm.weight.grad = torch.full((2,), float("nan"))  # not the optimizer's
    assert not guard.non_finite(torch.tensor(1.0))


def test_the_error_survives_the_way_from_another_process():
    error = NonFiniteError("loss", ["a", "b"], ". More")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.image_ids) == (str(error), ["a", "b"])


@pytest.mark.slow
def test_whole_trainings_in_short():
    command = [sys.executable, "trials/non_finite.py", "--short"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed, 0 failed" in done.stdout
