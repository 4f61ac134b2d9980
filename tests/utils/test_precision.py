import pytest
import torch
from torch import nn

from ddl_d2.data.datasets import load_config
from ddl_d2.errors import ConfigError
from ddl_d2.utils.precision import autocast, compile_parts

CONFIG = "configs/two_cores/mask2former_efficientnet_lite0.yaml"


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision, dtype):
    x = torch.ones(2, 2)
    with autocast("cpu", precision):
        assert (x @ x).dtype == dtype


def test_float16_evaluation_needs_a_gpu():
    with pytest.raises(ConfigError, match=r"TEST.PRECISION float16 needs a GPU"):
        load_config(CONFIG, ["TEST.PRECISION", "float16", "MODEL.DEVICE", "cpu"])


def test_only_the_backbone_and_the_pixel_decoder_are_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    model = nn.Module()
    model.backbone, model.image_head, model.sem_seg_head = nn.Conv2d(3, 8, 1), nn.Linear(1, 1), nn.Module()
    model.sem_seg_head.pixel_decoder, model.sem_seg_head.predictor = nn.Linear(1, 1), nn.Linear(1, 1)
    compile_parts(model)
    assert compiled == [model.backbone, model.sem_seg_head.pixel_decoder]
