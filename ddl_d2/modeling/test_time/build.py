"""What is done to a system where images are predicted: in evaluation, and in the predictor."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn

from ddl_d2.modeling.test_time.faces import on_face_crops
from ddl_d2.modeling.test_time.tiles import on_tiles


def wrapped_for_testing(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """`model` on tiles if TEST.TILE says so, and on face crops if INPUT.FACE_CROP does (large ones then in tiles)."""
    return on_face_crops(cfg, on_tiles(cfg, model))
