import pytest
import torch

from ddl_d2.engine.trainer import TrainingStep
from ddl_d2.modeling.matcher import NonFiniteError


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return {"loss_good": self.weight.sum(), "loss_bad": self.weight.sum() * batch[0]["value"]}


def _step(values, precision="float32"):
    model = _Model()
    loader = [[{"image_id": f"train/fake/{i}.png", "value": v}] for i, v in enumerate(values)]
    step = TrainingStep(model, loader, torch.optim.SGD(model.parameters(), 0.1), precision=precision)
    step._write_metrics = lambda *args: None
    return model, step


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_updates(precision):
    model, step = _step([1.0], precision)
    step.run_step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 2)  # d(w + w)/dw = 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_update_and_names_the_pictures(bad):
    model, step = _step([1.0, bad])
    step.run_step()
    before = model.weight.item()
    with pytest.raises(NonFiniteError, match=r"loss_bad .*train/fake/1\.png") as caught:
        step.run_step()
    assert "loss_good" not in str(caught.value)
    assert caught.value.image_ids == ["train/fake/1.png"]
    assert model.weight.item() == before
