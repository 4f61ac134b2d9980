"""Small clip models that several tests share."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model

from ddl_d2.data.datasets import load_config
from tests.conftest import ROOT

TINY_CLIP = [
    "MODEL.DEVICE", "cpu",
    "MODEL.TIMM.PRETRAINED", "",
    "MODEL.BATFD.VIDEO_ENCODER", "mvit_t",
    "MODEL.BATFD.AUDIO_ENCODER", "vit_t",
    "MODEL.BATFD.NUM_FRAMES", "32",
    "MODEL.BATFD.DURATIONS", "1:8",
]  # fmt: skip


def clip_model(*opts: str, config: str = "lav_df/batfd_plus.yaml"):
    """A small clip model on the CPU, in eval mode."""
    torch.manual_seed(0)
    return build_model(load_config(ROOT / "configs" / config, [*TINY_CLIP, *opts])).eval()
