import copy

import pytest
import torch
from torch import nn

from ddl_d2.config.load import read_config
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import ConfigError
from ddl_d2.solver.build import parameter_groups
from ddl_d2.solver.freezing import freeze
from tests.conftest import ROOT, TINY


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 1)

    def forward(self, batch):
        return {"loss": self.head(self.backbone(batch).mean(dim=(2, 3))).pow(2).mean()}


def _trained(model):
    return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("patterns", "trained", "norms"),
    [
        (["backbone"], ["head.bias", "head.weight"], 2),
        (["backbone.[0-2]", "head"], ["backbone.3.bias", "backbone.3.weight"], 1),
        (["backbone.*.weight", "*.bias"], ["head.weight"], 2),
        (["backbone.*.weight", "head"], [f"backbone.{i}.bias" for i in range(4)], 0),
        (["*.1", "backbone.[02]", "head.bias"], ["backbone.3.bias", "backbone.3.weight", "head.weight"], 1),
    ],
)
def test_patterns(patterns, trained, norms):
    model = _Network()
    freeze(model, patterns)
    assert _trained(model) == trained
    assert sum(not m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)) == norms
    groups = parameter_groups(
        model, lr=1, weight_decay=0, weight_decay_norm=0, weight_decay_embed=0, backbone_multiplier=1
    )
    assert sum(len(group["params"]) for group in groups) == len(_trained(model))


def test_what_is_frozen_stays_to_the_last_bit_and_the_rest_learns():
    torch.manual_seed(0)
    model = _Network()
    freeze(model, ["backbone"])
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):
        model.train()  # as after an evaluation
        model(torch.randn(4, 3, 8, 8))["loss"].backward()
        optimizer.step()
    after = model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_a_norm_without_parameters_can_be_named():
    model = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 1, 1))
    freeze(model, ["0"])
    model.train()
    model(torch.randn(2, 3, 4, 4) + 5)
    assert torch.equal(model[0].running_mean, torch.zeros(3))


def test_a_copy_of_a_frozen_model_is_frozen():
    model = _Network()
    freeze(model, ["backbone"])
    twin = copy.deepcopy(model).train()
    twin(torch.randn(2, 3, 4, 4))
    assert not twin.backbone[1].training


@pytest.mark.parametrize(
    ("patterns", "words"),
    [(["backbone.7"], r"'backbone\.7' matches no"), (["head", "nose"], "'nose'.*backbone, head"), (["*"], "no param")],
)
def test_what_cannot_be_meant_is_refused(patterns, words):
    with pytest.raises(ConfigError, match=words):
        freeze(_Network(), patterns)


def _config(data, output, *opts):
    path = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
    fixed = ["DATASETS.DDL_ROOT", str(data), "OUTPUT_DIR", str(output), "SEED", "1", "SOLVER.IMS_PER_BATCH", "2"]
    sizes = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "SOLVER.MAX_ITER", "2"]
    return load_config(path, [*TINY, *fixed, *sizes, "TEST.EVAL_PERIOD", "0", *opts])


def test_a_training_run(tiny_set, tmp_path):
    cfg = _config(tiny_set, tmp_path, "SOLVER.FREEZE", "['backbone']")
    trainer = ForgeryTrainer(cfg)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    changed = {n.partition(".")[0] for n, v in trainer.model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"sem_seg_head", "image_head"}
    with pytest.raises(ConfigError, match=r"SOLVER\.FREEZE was \['backbone'\], is now \[\]"):
        ForgeryTrainer(_config(tiny_set, tmp_path)).resume_or_load(resume=True)


def test_the_key_is_a_list(tmp_path):
    config = tmp_path / "frozen.yaml"
    config.write_text('SOLVER: {FREEZE: ["backbone", "sem_seg_head.pixel_decoder"]}\n')
    assert list(read_config(config).SOLVER.FREEZE) == ["backbone", "sem_seg_head.pixel_decoder"]
