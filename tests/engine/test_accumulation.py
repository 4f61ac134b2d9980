"""SOLVER.ACCUMULATION_PARTS: a batch in parts makes the update of the whole batch."""

import copy

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ddl_d2.data.datasets import load_config
from ddl_d2.engine.step import TrainingStep
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError, NonFiniteError
from ddl_d2.modeling.losses import mean_of_known
from ddl_d2.modeling.preprocessing import is_known
from ddl_d2.modeling.whole_batch import count_per_part, in_parts, whole_batch
from ddl_d2.solver.build import build_optimizer, clip_full_model
from tests.conftest import ROOT, TINY
from tests.ranks import on_ranks


def _step(model, batches, optimizer, **options):
    step = TrainingStep(model, batches, optimizer, **{"precision": "float32"} | options)
    step._write_metrics = lambda *args: None
    return step


def test_counts_are_those_of_the_whole_batch():
    rows = [{"n": 0}, {"n": 3}, {"n": 1}, {"n": 0}]
    assert count_per_part(rows, lambda row: row["n"]) == 4
    assert count_per_part(rows[:1], lambda row: row["n"]) == 1  # at least
    with in_parts(rows, 2) as parts:
        assert parts == [rows[:2], rows[2:]]
        # 4 of the batch, 2 for each half.
        assert [count_per_part(part, lambda row: row["n"]) for part in parts] == [2, 2]
    assert whole_batch(rows[:1]).parts == 1


class _LeastSquares(nn.Module):
    """Mean of (w·x - y)² over the known rows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, batch):
        by_row = torch.stack([(self.weight @ row["x"] - row["y"]) ** 2 for row in batch])
        known = torch.tensor([row["localization_valid"] for row in batch])
        return {"loss": mean_of_known(by_row, known, count_per_part(batch, is_known))}


def _rows(count=8):
    rng = np.random.default_rng(0)
    return [
        {
            "x": torch.tensor(rng.normal(size=2), dtype=torch.float32),
            "y": float(rng.normal()),
            "localization_valid": i not in (1, 2, 3),
            "image_id": f"{i}.png",
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize("sam_rho", [0.0, 0.05])
def test_the_update_is_that_of_the_whole_batch(parts, sam_rho):
    # Five of eight rows are known, unevenly: halves know 1 and 4.
    whole, cut = _LeastSquares(), _LeastSquares()
    for model, count in ((whole, 1), (cut, parts)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        clip_full_model(optimizer, max_norm=0.5, norm_type=2.0)
        step = _step(model, [_rows()] * 3, optimizer, parts=count, sam_rho=sam_rho)
        for _ in range(3):
            step.run_step()
    assert cut.weight.tolist() == pytest.approx(whole.weight.tolist(), rel=1e-5)


def _rank(rank, rows, parts):
    model = DistributedDataParallel(_LeastSquares())
    reductions = []
    model.register_comm_hook(None, lambda _, bucket: _counted(reductions, bucket))
    _step(model, [rows[rank::2]], torch.optim.SGD(model.parameters(), 0.1), parts=parts).run_step()
    return model.module.weight.tolist(), len(reductions)


def _counted(reductions, bucket):
    reductions.append(bucket.index())
    work = torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def test_ranks_reduce_once_for_all_parts():
    rows = [row | {"localization_valid": True} for row in _rows()]
    model = _LeastSquares()
    _step(model, [rows], torch.optim.SGD(model.parameters(), 0.1)).run_step()
    for weight, reductions in on_ranks(_rank, 2, rows, 4):
        assert weight == pytest.approx(model.weight.tolist(), rel=1e-5)
        assert reductions == 1


class _ConstantPoints:
    """Stands in for `torch.rand` where points are drawn: the same for every mask, in whatever batch it comes."""

    def __call__(self, *size, device=None, **_):
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        points = torch.from_numpy(np.random.default_rng(7).random(tuple(shape[-2:]), dtype=np.float32))
        return points.expand(*shape).clone()


@pytest.fixture
def mask2former(tiny_cfg, monkeypatch):
    """The query decoder on a backbone without batch norms."""
    monkeypatch.setattr(torch, "rand", _ConstantPoints())
    torch.manual_seed(0)
    cfg = tiny_cfg("MODEL.TIMM.DROP_PATH_RATE", "0.0", config="ddl_i/mask2former_swin_tiny.yaml")
    return cfg, build_model(cfg).train()


@pytest.mark.parametrize("parts", [2, 4])
def test_the_query_decoder_learns_as_from_the_whole_batch(mask2former, make_row, parts):
    cfg, model = mask2former
    # Regions and known masks are unlike from part to part: 1, 0 | 1, 0 (unknown).
    rows = [make_row(0), make_row(1, fake=False), make_row(2), make_row(3, fake=False) | {"localization_valid": False}]
    gradients = []
    for count in (1, parts):
        one = copy.deepcopy(model)
        optimizer = build_optimizer(cfg, one)
        optimizer.register_step_pre_hook(
            lambda *_, one=one: gradients.append({n: p.grad.clone() for n, p in one.named_parameters()})
        )
        _step(one, [rows], optimizer, parts=count).run_step()
    # Clipped already, so that the largest are about 1e-3.
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, rtol=1e-3, atol=1e-5 * largest), name


def test_bfloat16_and_metrics(mask2former, make_row):
    cfg, model = mask2former
    rows = [make_row(i, fake=i % 2 == 0) for i in range(4)]
    step = TrainingStep(model, [rows], build_optimizer(cfg, model), precision="bfloat16", parts=2)
    written = []
    step._write_metrics = lambda losses, _: written.append({k: float(v) for k, v in losses.items()})
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = {name: float(loss) for name, loss in copy.deepcopy(model)(rows).items()}
    step.run_step()
    assert written[0].keys() == expected.keys()
    assert sum(written[0].values()) == pytest.approx(sum(expected.values()), rel=0.02)


def test_a_loss_that_is_not_finite_in_any_part_stops_before_the_update():
    rows = _rows(4)
    rows[0]["y"] = float("nan")
    model = _LeastSquares()
    step = _step(model, [rows], torch.optim.SGD(model.parameters(), 0.1), parts=4)
    with pytest.raises(NonFiniteError, match=r"loss .*0\.png"):
        step.run_step()
    assert model.weight.tolist() == [1.0, -2.0]


def _config(data, output, *opts):
    path = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
    fixed = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output), "SEED", "1", "SOLVER.IMS_PER_BATCH", "4"]
    sizes = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "SOLVER.CHECKPOINT_PERIOD", "2"]
    return load_config(path, [*TINY, *fixed, *sizes, "TEST.EVAL_PERIOD", "0", "SOLVER.ACCUMULATION_PARTS", "2", *opts])


def test_a_resumed_run_goes_on_as_one_that_was_never_interrupted(tiny_set, tmp_path, caplog):
    states = []
    for folder, lengths in (("whole", [4]), ("resumed", [2, 4])):
        for number, length in enumerate(lengths):
            torch.manual_seed(0)
            rate = ["SOLVER.LR_SCHEDULER_NAME", "WarmupLinearTailLR", "SOLVER.TAIL_START", "1.0"]
            length_and_rate = ["SOLVER.MAX_ITER", str(length), *rate, "SOLVER.WARMUP_ITERS", "0"]
            trainer = ForgeryTrainer(_config(tiny_set, tmp_path / folder, *length_and_rate))
            trainer.resume_or_load(resume=number > 0)
            trainer.train()
        states.append(trainer.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert "batch norms see a part of each batch" in caplog.text


def test_parts_that_do_not_divide_the_batch_are_refused(tiny_set, tmp_path):
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH 4 is not a positive multiple of 1 processes times 3 parts"):
        ForgeryTrainer(_config(tiny_set, tmp_path, "SOLVER.ACCUMULATION_PARTS", "3"))
    with pytest.raises(ConfigError, match="ACCUMULATION_PARTS is 0"):
        ForgeryTrainer(_config(tiny_set, tmp_path, "SOLVER.ACCUMULATION_PARTS", "0"))
    with pytest.raises(ConfigError, match="PSEUDO_LABELS"):
        _config(tiny_set, tmp_path, "MODEL.LFDL.PSEUDO_LABELS.ENABLED", "True")
