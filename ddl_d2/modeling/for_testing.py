"""What is done to a system where pictures are predicted: in evaluation, and in the predictor."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ddl_d2.modeling.face_crops import on_face_crops
from ddl_d2.modeling.tiles import on_tiles


def wrapped_for_testing(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """`model` on tiles if TEST.TILE says so, and on face crops if INPUT.FACE_CROP does (large ones then in tiles)."""
    return on_face_crops(cfg, on_tiles(cfg, model))


def fold_norms(model: nn.Module) -> None:
    """Have the convolutions of Detectron2 in `model`, which is in eval mode, do what the batch norms behind them do.

    Fixed statistics make a norm a scale and a shift of each channel, which weights and bias can take over: one pass
    over the feature map less for each. Outputs change by rounding (1e-6 of their range), and names of parameters do:
    load weights before, and do not train or save afterwards.
    """
    for convolution in model.modules():
        norm = getattr(convolution, "norm", None)
        if isinstance(convolution, Conv2d) and isinstance(norm, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            convolution.norm = None
