"""Folding batch norms into the convolutions before them."""

from __future__ import annotations

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


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
