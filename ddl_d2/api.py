"""The names that `ddl_d2` offers. Importing this module registers the project's parts with Detectron2."""

from __future__ import annotations

from ddl_d2 import modeling as _modeling  # noqa: F401  (registers systems, heads and backbones)
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.load import list_configs
from ddl_d2.data.datasets import load_config, register_all_ddl
from ddl_d2.inference.model import Model, load_model
from ddl_d2.inference.prediction import Prediction

__all__ = ["Model", "Prediction", "add_ddl_config", "list_configs", "load_config", "load_model"]

register_all_ddl()
