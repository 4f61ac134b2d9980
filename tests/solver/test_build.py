import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.solver.build import build_lr_scheduler, build_optimizer, clip_full_model, parameter_groups
from ddl_d2.solver.schedules import stable_then_tail


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.backbone.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.head = nn.Linear(4, 2)
        self.norm = nn.LayerNorm(2)
        self.queries = nn.Embedding(5, 2)
        self.tied = self.head
        self.gamma = nn.Parameter(torch.ones(2))


def test_each_parameter_is_in_one_group_with_its_rate_and_decay():
    model = _Network()
    groups = parameter_groups(
        model, lr=1.0, weight_decay=0.5, weight_decay_norm=0.0, weight_decay_embed=0.25, backbone_multiplier=0.1
    )
    where = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters())) == len(where)
    assert where[id(model.backbone[0].weight)] == (0.1, 0.5)
    assert where[id(model.backbone[1].bias)] == (0.1, 0.0)
    assert where[id(model.backbone.relative_position_bias_table)] == (0.1, 0.25)
    assert where[id(model.head.bias)] == where[id(model.gamma)] == (1.0, 0.5)
    assert where[id(model.norm.weight)] == (1.0, 0.0)
    assert where[id(model.queries.weight)] == (1.0, 0.25)


def test_biases_and_layer_scales_may_have_decays_of_their_own(tiny_cfg):
    model = _Network()
    cfg = tiny_cfg("SOLVER.WEIGHT_DECAY", "0.5", "SOLVER.WEIGHT_DECAY_BIAS", "0", "SOLVER.WEIGHT_DECAY_SCALE", "0.125")
    groups = build_optimizer(cfg, model).param_groups
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert (decay[id(model.head.weight)], decay[id(model.head.bias)], decay[id(model.gamma)]) == (0.5, 0.0, 0.125)
    assert decay[id(model.backbone[0].bias)] == 0.0
    assert decay[id(model.norm.bias)] == 0.0  # a normalization's, not another layer's


def _decays(cfg) -> dict[str, float]:
    model = build_model(cfg)
    decay = {
        id(p): group["weight_decay"] for group in build_optimizer(cfg, model).param_groups for p in group["params"]
    }
    return {name: decay[id(p)] for name, p in model.named_parameters()}


def test_mitl_decays_as_timm_does_no_vector(tiny_cfg):
    decays = _decays(tiny_cfg(config="ddl_i/mitl_mesorch.yaml"))
    shapes = {name: p.dim() for name, p in build_model(tiny_cfg(config="ddl_i/mitl_mesorch.yaml")).named_parameters()}
    assert {decays[name] for name in decays if shapes[name] <= 1} == {0.0}
    assert {decays[name] for name in decays if shapes[name] > 1} == {0.05}
    assert any(name.endswith("gamma") for name in decays)  # ConvNeXt's layer scale


def test_lfdl_decays_everything_as_adam_does(tiny_cfg):
    lite = ["MODEL.TIMM.NAME", "tf_efficientnet_lite0.in1k", "MODEL.LFDL.LFGA", "released"]
    assert set(_decays(tiny_cfg(*lite, config="ddl_i/lfdl_xception.yaml")).values()) == {1e-5}


def test_s1_decays_as_mask2former_does_biases_too_but_no_norm_query_or_table(tiny_cfg):
    decays = _decays(tiny_cfg(config="ddl_i/mask2former_swin_tiny.yaml"))
    assert decays["backbone.body.layers_0.blocks.0.attn.qkv.bias"] == 0.05
    assert decays["backbone.body.layers_0.blocks.0.attn.relative_position_bias_table"] == 0.0
    assert decays["backbone.body.layers_0.blocks.0.norm1.weight"] == 0.0
    assert decays["sem_seg_head.predictor.query_feat.weight"] == 0.0


def test_clipping_is_over_all_parameters_together():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 1.0}], lr=1.0)
    clip_full_model(optimizer, max_norm=1.0, norm_type=2.0)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()  # the norm is 5: both are divided by it
    assert a.item() == pytest.approx(-0.6)
    assert b.item() == pytest.approx(-0.8)


def test_polynomial_decay_by_hand(tiny_cfg):
    cfg = tiny_cfg("SOLVER.MAX_ITER", "10", "SOLVER.WARMUP_ITERS", "0", "SOLVER.BASE_LR", "1.0")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([(1 - i / 10) ** 0.9 for i in range(10)])


@pytest.mark.parametrize(
    ("name", "kind"), [("ADAMW", torch.optim.AdamW), ("ADAM", torch.optim.Adam), ("SGD", torch.optim.SGD)]
)
def test_optimizer_by_name(tiny_cfg, name, kind):
    assert type(build_optimizer(tiny_cfg("SOLVER.OPTIMIZER", name), _Network())) is kind


@pytest.mark.parametrize(("name", "first_step"), [("ADAM", 0.1), ("ADAMW", 0.05)])
def test_decay_of_adam_is_a_penalty_and_of_adamw_a_shrinking(tiny_cfg, name, first_step):
    """Without a gradient of the loss. Adam: that of the penalty, 0.5 w, whose first step has the length of the rate
    whatever its size. AdamW: w shrinks by rate x decay x w = 0.1 x 0.5 x 1."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    cfg = tiny_cfg("SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", "0.1", "SOLVER.WEIGHT_DECAY", "0.5")
    optimizer = build_optimizer(cfg, model)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - first_step, abs=1e-6)


def test_a_linear_tail_by_hand(tiny_cfg):
    cfg = tiny_cfg(
        "SOLVER.LR_SCHEDULER_NAME", "WarmupLinearTailLR",
        "SOLVER.TAIL_START", "0.75",
        "SOLVER.MAX_ITER", "8",
        "SOLVER.WARMUP_ITERS", "2",
        "SOLVER.WARMUP_FACTOR", "0.5",
        "SOLVER.BASE_LR", "1.0",
    )  # fmt: skip
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # Warm-up 0.5 -> 1 over two steps; from step 6 of 8 on a line that would reach 0 at step 8.
    assert rates == pytest.approx([0.5, 0.75, 1, 1, 1, 1, 1, 0.5])


def test_a_tail_of_everything_and_of_nothing():
    assert [stable_then_tail(0.0)(t) for t in (0.0, 0.25, 0.75)] == pytest.approx([1, 0.75, 0.25])
    assert [stable_then_tail(1.0)(t) for t in (0.0, 0.25, 0.999)] == [1, 1, 1]


def test_a_stable_phase_and_three_ways_down():
    # From t = 0.8 on; at t = 0.85, a quarter of the way: 1 - 1/4, (1 + cos 45°) / 2, 1 - √(1/4).
    quarter = {"linear": 0.75, "cosine": (1 + 0.5**0.5) / 2, "sqrt": 0.5}
    for shape, expected in quarter.items():
        schedule = stable_then_tail(0.8, shape)
        assert [schedule(t) for t in (0.0, 0.5, 0.79)] == [1, 1, 1]
        assert schedule(0.85) == pytest.approx(expected)
        assert schedule(0.999999) == pytest.approx(0, abs=2e-3)
        assert stable_then_tail(0.8, shape, end=0.1)(0.85) == pytest.approx(0.1 + 0.9 * expected)
        assert stable_then_tail(0.0, shape)(0.25) == pytest.approx(expected)


def test_warm_up_stable_decay_from_the_config(tiny_cfg):
    cfg = tiny_cfg(
        "SOLVER.LR_SCHEDULER_NAME", "WarmupStableDecayLR", "SOLVER.BASE_LR", "0.1", "SOLVER.BASE_LR_END", "0.01",
        "SOLVER.TAIL_START", "0.5", "SOLVER.WARMUP_ITERS", "10", "SOLVER.WARMUP_FACTOR", "0.0",
        "SOLVER.MAX_ITER", "100",
    )  # fmt: skip
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
    schedule = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.05)
    assert rates[10:50] == pytest.approx([0.1] * 40)
    # At step 75, half of the way: 0.01 + 0.09 · (1 - √0.5).
    assert rates[75] == pytest.approx(0.01 + 0.09 * (1 - 0.5**0.5))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_an_exponential_fall_and_the_betas_from_the_config(tiny_cfg):
    cfg = tiny_cfg(
        "SOLVER.LR_SCHEDULER_NAME", "WarmupExponentialLR", "SOLVER.BASE_LR", "1.0", "SOLVER.BASE_LR_END", "0.01",
        "SOLVER.WARMUP_ITERS", "0", "SOLVER.MAX_ITER", "4", "SOLVER.OPTIMIZER", "ADAM", "SOLVER.BETAS", "[0.5, 0.9]",
        "SOLVER.CLIP_GRADIENTS.ENABLED", "False",
    )  # fmt: skip
    optimizer = build_optimizer(cfg, nn.Linear(1, 1, bias=False))
    assert all(group["betas"] == (0.5, 0.9) for group in optimizer.param_groups)
    schedule = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    # A hundredth in four steps: each the square root of a tenth.
    assert rates == pytest.approx([1, 0.1**0.5, 0.1, 0.1**1.5])
