"""MODEL.SYNC_BN: every batch norm of every system becomes one over all ranks."""

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError
from ddl_d2.modeling import sync_norm
from ddl_d2.modeling.sync_norm import synchronized_norms

LFDL = "two_cores/lfdl_efficientnet_lite0.yaml"


@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setattr(sync_norm.comm, "get_world_size", lambda: 2)


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("config", [LFDL, "quickstart/mask2former_efficientnet_lite0.yaml"])
def test_same_names_numbers_and_activations(tiny_cfg, make_row, config):
    """EfficientNet's norms hold their activation, which PyTorch's own conversion would lose."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg(config=config)).eval()
    rows, state = [make_row(0)], {name: value.clone() for name, value in model.state_dict().items()}
    before = model(rows)[0]["forgery_map"]
    converted = synchronized_norms(model)
    norms = [module for module in converted.modules() if isinstance(module, _BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    after = converted.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in after.items())
    torch.testing.assert_close(converted(rows)[0]["forgery_map"], before)


def test_one_rank_keeps_its_norms(tiny_cfg):
    model = synchronized_norms(build_model(tiny_cfg(config=LFDL)))
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_the_trainer_converts_and_refuses_what_cpus_cannot_do(tiny_cfg, tiny_set, tmp_path, monkeypatch):
    cfg = tiny_cfg(
        "MODEL.SYNC_BN", "True", "DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path), config=LFDL
    )
    ForgeryTrainer(cfg)
    monkeypatch.setattr(sync_norm.comm, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"on CPUs set MODEL.SYNC_BN False"):
        ForgeryTrainer(cfg)
