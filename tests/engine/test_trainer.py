import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.engine.optim import build_optimizer
from ddl_d2.engine.trainer import TrainingStep
from ddl_d2.modeling.matcher import NonFiniteError
from tests.conftest import CONFIGS, ROOT


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_config_takes_a_step(path, tiny_cfg, make_row):
    """Its own optimizer, clipping and sharpness-aware minimisation; small pictures, fp32."""
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.RESNETS.NORM", "BN", config=str(path.relative_to(ROOT / "configs")))
    model = build_model(cfg).train()
    sam_rho = cfg.SOLVER.SAM.RHO if cfg.SOLVER.SAM.ENABLED else 0.0
    rows = [make_row(0, size=(64, 64)), make_row(1, fake=False, size=(64, 64))]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = TrainingStep(model, [rows], build_optimizer(cfg, model), precision="float32", sam_rho=sam_rho)
    step._write_metrics = lambda *args: None
    step.run_step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(not torch.equal(p, before[name]) for name, p in model.named_parameters()) > len(before) // 2
