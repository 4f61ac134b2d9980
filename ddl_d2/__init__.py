"""Deepfake detection and localization on Detectron2. Importing the package registers its parts with Detectron2."""

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data import datasets as _datasets
from ddl_d2.modeling import meta_arch as _meta_arch  # noqa: F401
from ddl_d2.version import __version__

_datasets.register_all_ddl()

__all__ = ["__version__", "add_ddl_config"]
