"""Folding of batch norms into the convolutions before them."""

from __future__ import annotations

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(model: nn.Module) -> None:
    """Fold the batch norms of Detectron2's convolutions into their weights and biases.

    Fixed statistics make a norm a scale and a shift of each channel, which weights and bias can take over: one pass
    over the feature map less for each. Outputs change by rounding (1e-6 of their range), and names of parameters
    change: load weights before, and do not train or save afterwards.

    Args:
        model: in eval mode; changed in place.
    """
    for convolution in model.modules():
        norm = getattr(convolution, "norm", None)
        if not isinstance(convolution, Conv2d) or not isinstance(norm, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            continue
        mean, variance = norm.running_mean, norm.running_var
        if mean is not None and variance is not None:  # else it normalizes by the batch, in eval mode, too
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                mean,
                variance,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            convolution.norm = None
