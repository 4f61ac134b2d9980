"""Where a detector looked: Grad-CAM++ on the deepest stage of its encoder that its verdict depends on.

It asks of a model, besides Detectron2's call, what every system of this project with an image head offers:

    model.backbone                             a Detectron2 backbone: {name: B×C×h×w}, `output_shape()`
    model.image_logits(features, image_sizes)  differentiable: those features, and the unpadded (height, width) of each
                                               image -> B logits of "fake"; ConfigError without an image head

Legend: `C` channels, `h, w` cells of the stage, `H, W` pixels of the original image.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.postprocessing import original_size, to_original
from ddl_d2.modeling.test_time.windows import OnWindows


def predict_with_heat_map(model: nn.Module, row: dict[str, Any]) -> dict[str, Any]:
    """Predict an image and show what its score rests on.

    The encoder runs once: its features are caught on their way, and only the image head is run again, with gradients.
    On windows (face crops, tiles) it does so for each; their maps are merged into one as their forgery maps are, and
    then scaled together. They show what each window's score rests on; which of two windows holds more evidence they
    hardly tell, since the weights of Grad-CAM++ level its maps (see `grad_cam_plus_plus`).

    Args:
        model: in eval mode; see the module; or such a model in an `OnWindows`.
        row: as a mapper makes it: `image` uint8 3×h'×w' (or `crops`), and `height`, `width` of the original.

    Returns:
        the model's output for the image and `heat_map`: float32 tensor H×W in [0, 1], its highest value 1, or 0
        everywhere if nothing speaks for a fake.

    Raises:
        ConfigError: the model has no image head, so that there is no score to explain.
    """
    output, heat = _predict_with_evidence(model, row)
    highest = float(heat.max())
    return {**output, "heat_map": heat / highest if highest > 0 else heat}


def _predict_with_evidence(model: nn.Module, row: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """The model's output for a row, and the activation at the original size: float32 H×W, >= 0."""
    if isinstance(model, OnWindows):
        windows = model.windows(row)
        if windows is None:
            return _predict_with_evidence(model.model, row)
        found = [_predict_with_evidence(model.model, window) for window in windows]
        return model.merge(row, (output for output, _ in found)), model.merge_maps(row, (heat for _, heat in found))
    if not hasattr(model, "image_logits"):
        raise ConfigError(f"{type(model).__name__} has no image_logits, so no heat map can be made of its score")
    explained: Any = model  # it has what the module asks for
    caught: dict[str, Tensor] = {}
    this_thread = threading.get_ident()

    def catch(module: nn.Module, inputs: tuple[Tensor, ...], output: dict[str, Tensor]) -> None:
        if threading.get_ident() == this_thread:  # the hook also sees what other threads show the same model
            caught.update(output)

    hook = explained.backbone.register_forward_hook(catch)
    try:
        with torch.no_grad():
            output = dict(model([row])[0])
    finally:
        hook.remove()
    unpadded = (int(row["image"].shape[-2]), int(row["image"].shape[-1]))
    strides = {name: shape.stride for name, shape in explained.backbone.output_shape().items()}
    name, cells = class_activation(caught, strides, lambda features: explained.image_logits(features, [unpadded]))
    padded = tuple(side * strides[name] for side in cells.shape)
    whole = F.interpolate(cells[None, None], size=padded, mode="bilinear", align_corners=False)[0, 0]
    return output, to_original(whole, unpadded, original_size(row)).clamp_min(0)


def class_activation(
    features: dict[str, Tensor], strides: dict[str, int], logits_of: Callable[[dict[str, Tensor]], Tensor]
) -> tuple[str, Tensor]:
    """Grad-CAM++ of the coarsest stage that the logits depend on.

    Args:
        features: {name: 1×C×h×w} of one image.
        strides: of each.
        logits_of: features -> logits (1,) of "fake", differentiable.

    Returns:
        (name of the stage, its activation, float32 h×w, >= 0).

    Raises:
        ConfigError: the logits depend on none of the features.
    """
    with torch.enable_grad():
        leaves = {name: feature.detach().float().requires_grad_() for name, feature in features.items()}
        score = logits_of(leaves).sum()
        gradients = torch.autograd.grad(score, list(leaves.values()), allow_unused=True)
    found = {name: gradient for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
    if not found:
        raise ConfigError("the score does not depend on the encoder's features, so no heat map can be made")
    name = max(found, key=lambda stage: strides[stage])
    return name, grad_cam_plus_plus(leaves[name].detach()[0], found[name][0])


def grad_cam_plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """Σ_k w_k A^k, rectified: C×h×w activations A and gradients g of the score -> h×w, >= 0.

    w_k = Σ_ij α^k_ij ReLU(g^k_ij) and α = g² / (2 g² + ΣA g³) (Chattopadhay et al., WACV 2018, eq. 19 with Y = exp S),
    computed as 1 / (2 + ΣA g), which needs no guard against small gradients. The derivation is for rectified features:
    where an encoder's are not, a negative ΣA counts as 0, or α would have poles.
    """
    total = activation.sum(dim=(1, 2), keepdim=True).clamp_min(0)
    positive = gradient.clamp_min(0)
    weights = (positive / (2 + total * positive)).sum(dim=(1, 2))
    return torch.einsum("k,khw->hw", weights, activation).clamp_min(0)
