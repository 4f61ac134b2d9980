import copy
import math

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.data.datasets import load_config
from ddl_d2.engine.step import TrainingStep
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError, NonFiniteError
from ddl_d2.solver.build import build_optimizer
from ddl_d2.solver.sam import frozen_running_statistics, random_numbers_to_repeat, uphill
from tests.conftest import ROOT, TINY
from tests.ranks import on_ranks


def _step(model, batches, optimizer, **options):
    step = TrainingStep(model, batches, optimizer, **{"precision": "float32", "sam_rho": 0.05} | options)
    step._write_metrics = lambda *args: None
    return step


class _Quadratic(nn.Module):
    """½ Σ k·w², whose gradient is k·w."""

    def __init__(self, weights, curvatures):
        super().__init__()
        self.weights = nn.ParameterList(torch.tensor([w]) for w in weights)
        self.curvatures = curvatures
        self.seen = []

    def forward(self, batch):
        self.seen.append([w.item() for w in self.weights])
        return {"loss": sum(0.5 * k * (w**2).sum() for k, w in zip(self.curvatures, self.weights, strict=True))}


def test_a_step_by_hand():
    # w = (3, 2), k = (1, 2): g = (3, 4), norm 5. With rho = 0.5 uphill is w + 0.1 · g = (3.3, 2.4), where the gradient
    # is (3.3, 4.8). SGD with rate 0.1: (3 - 0.33, 2 - 0.48).
    model = _Quadratic([3.0, 2.0], [1.0, 2.0])
    step = _step(model, [[{}]], torch.optim.SGD(model.parameters(), 0.1), sam_rho=0.5)
    step.run_step()
    assert model.seen[0] == [3.0, 2.0]
    assert model.seen[1] == pytest.approx([3.3, 2.4])
    assert [w.item() for w in model.weights] == pytest.approx([2.67, 1.52])


def test_the_norm_is_over_all_groups_and_clipping_is_of_the_second_gradient():
    model = _Quadratic([3.0, 2.0], [1.0, 2.0])
    groups = [{"params": [model.weights[0]]}, {"params": [model.weights[1]], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, 0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append([w.grad.item() for w in model.weights]))
    _step(model, [[{}]], optimizer, sam_rho=0.5).run_step()
    assert seen == [pytest.approx([3.3, 4.8])]
    assert [w.item() for w in model.weights] == pytest.approx([3 - 0.33, 2 - 0.96])


def test_weights_return_bit_for_bit():
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(1000) * 10.0 ** (i - 3)) for i in range(7)] + [nn.Parameter(torch.ones(2))]
    for parameter in parameters[:-1]:
        parameter.grad = torch.randn_like(parameter)
    before = [p.detach().clone() for p in parameters]
    gradients = [p.grad.clone() for p in parameters[:-1]]
    norm = math.sqrt(sum((g.double() ** 2).sum() for g in gradients))
    with uphill(parameters, 0.05):
        for parameter, w, g in zip(parameters, before, gradients, strict=False):
            assert torch.allclose(parameter.detach(), w + 0.05 / norm * g, rtol=1e-5)
        assert torch.equal(parameters[-1], before[-1])  # it has no gradient
    assert all(torch.equal(p, w) for p, w in zip(parameters, before, strict=True))


def test_zero_gradients_move_nothing():
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.zeros(3)
    with uphill([parameter], 0.05):
        assert torch.equal(parameter, torch.ones(3))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_running_statistics_count_each_batch_once(norm):
    # SyncBatchNorm trains on GPUs only, so only the flags are looked at.
    layer = norm(3)
    with frozen_running_statistics(nn.Sequential(layer)):
        assert (layer.momentum, layer.track_running_stats) == (0.0, False)
    assert (layer.momentum, layer.track_running_stats) == (0.1, True)


def test_frozen_statistics_stay_and_the_output_is_the_batchs():
    layer, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5) + 2
    expected = copy.deepcopy(layer)(x)
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    with frozen_running_statistics(layer):
        assert torch.equal(layer(x), expected)
    assert all(torch.equal(v, state[k]) for k, v in layer.state_dict().items())
    layer.eval()
    with frozen_running_statistics(layer):  # a layer in eval mode goes on using its statistics
        assert torch.allclose(layer(x), x / math.sqrt(1 + layer.eps), atol=1e-5)


class _Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.seen = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), []

    def forward(self, batch):
        keep = torch.rand(5)
        self.seen.append(keep)
        return {"loss": self.norm(self.conv(batch[0]["image"])).mean(dim=(0, 2, 3)).pow(2).sum() + keep.sum() * 0}


def test_both_passes_draw_the_same_and_statistics_move_once():
    torch.manual_seed(0)
    model = _Noisy()
    plain = copy.deepcopy(model)
    rows = [{"image": torch.randn(2, 3, 4, 4)}]
    _step(model, [rows, rows], torch.optim.SGD(model.parameters(), 0.0)).run_step()
    assert torch.equal(*model.seen)
    plain(rows)
    assert torch.equal(model.norm.running_mean, plain.norm.running_mean)
    assert model.norm.num_batches_tracked == 1
    # The next step draws anew.
    model(rows)
    assert not torch.equal(model.seen[0], model.seen[2])


def test_random_numbers_repeat():
    with random_numbers_to_repeat(torch.device("cpu")):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), first)


def _rank(rank, rows, expected):
    model = nn.parallel.DistributedDataParallel(_LeastSquares())
    _step(model, [[rows[rank]]], torch.optim.SGD(model.parameters(), 0.1), sam_rho=0.5).run_step()
    assert model.module.weight.tolist() == pytest.approx(expected)


class _LeastSquares(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, batch):
        return {"loss": torch.stack([(self.weight @ x["x"] - x["y"]) ** 2 for x in batch]).mean()}


def test_two_processes_step_as_one():
    rows = [{"x": torch.tensor([1.0, 2.0]), "y": 1.0}, {"x": torch.tensor([-3.0, 0.5]), "y": 2.0}]
    model = _LeastSquares()
    _step(model, [rows], torch.optim.SGD(model.parameters(), 0.1), sam_rho=0.5).run_step()
    assert on_ranks(_rank, 2, rows, model.weight.tolist()) == [None] * 2


class _Breaks(nn.Module):
    """Finite at w = 1, not a number anywhere above."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        factor = float("nan") if self.weight.item() > 1 else 1.0
        return {"loss_bad": (self.weight * factor).sum()}


def test_a_non_finite_loss_uphill_stops_before_the_update_with_the_weights_in_place():
    model = _Breaks()
    step = _step(model, [[{"image_id": "x.png"}]], torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(NonFiniteError, match=r"loss_bad .*x\.png"):
        step.run_step()
    assert model.weight.item() == 1.0


def test_float16_is_refused_by_name():
    path = ROOT / "configs/ff/swin_unet_swin_tiny.yaml"
    with pytest.raises(ConfigError, match=r"SOLVER\.SAM\.ENABLED .*SOLVER\.AMP\.PRECISION"):
        load_config(path, ["SOLVER.AMP.PRECISION", "float16", "MODEL.DEVICE", "cuda"])
    with pytest.raises(ConfigError, match=r"SOLVER\.SAM\.RHO"):
        load_config(path, ["SOLVER.SAM.RHO", "0.0"])
    with pytest.raises(ConfigError, match="float16"):
        _step(nn.Linear(1, 1), [], torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), precision="float16")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_papers_network_steps(tiny_cfg, make_row, precision):
    torch.manual_seed(0)
    cfg = tiny_cfg(config="ff/swin_unet_swin_tiny.yaml")
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    rows = [make_row(0, size=(64, 64)), make_row(1, fake=False, size=(64, 64))]
    before = [p.detach().clone() for p in model.parameters()]
    _step(model, [rows], optimizer, precision=precision).run_step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_training_run(tiny_set, tmp_path):
    options = [
        "DATASETS.DDL_ROOT", str(tiny_set),
        "OUTPUT_DIR", str(tmp_path),
        "INPUT.MIN_SIZE_TRAIN", "(64,)",
        "INPUT.CROP.SIZE", "[64, 64]",
        "INPUT.SELF_BLEND.ENABLED", "False",
        "SOLVER.SAM.ENABLED", "True",
        "SOLVER.IMS_PER_BATCH", "2",
        "SOLVER.MAX_ITER", "3",
        "TEST.EVAL_PERIOD", "0",
    ]  # fmt: skip
    cfg = load_config(ROOT / "configs/two_cores/swin_unet_efficientnet_lite0.yaml", [*TINY, *options])
    trainer = ForgeryTrainer(cfg)
    assert trainer._trainer.sam_rho == 0.05
    trainer.train()
    # Three batches, each counted once although each was seen twice.
    counts = {int(v) for k, v in trainer.model.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {3}
