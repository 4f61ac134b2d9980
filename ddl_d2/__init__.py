"""Deepfake detection and localization on Detectron2.

    model = ddl_d2.load_model("weights.safetensors")
    result = model.predict("photo.jpg")

Importing the package costs nothing: torch and Detectron2 are imported when one of the names below is first used, and
with them the systems, heads, backbones and datasets of this project are registered with Detectron2.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ddl_d2.utils.user import name_nameless_user
from ddl_d2.version import __version__

if TYPE_CHECKING:
    from ddl_d2.api import Model, Prediction, add_ddl_config, list_configs, load_config, load_model

__all__ = [
    "Model",
    "Prediction",
    "__version__",
    "add_ddl_config",
    "list_configs",
    "load_config",
    "load_model",
]

name_nameless_user()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ddl_d2' has no attribute '{name}'")
    from ddl_d2.requirements import explained

    with explained():
        return getattr(importlib.import_module("ddl_d2.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
