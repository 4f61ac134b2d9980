"""On-disk layouts -> dataset dicts, and their registration with Detectron2."""

from ddl_d2.data.datasets.catalog import register_all_ddl, register_datasets
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.ddl_i import find_splits
from ddl_d2.data.datasets.errors import DatasetError, DatasetReport
from ddl_d2.data.datasets.load import load_dataset, load_folder

__all__ = [
    "DatasetColumns",
    "DatasetError",
    "DatasetReport",
    "find_splits",
    "load_dataset",
    "load_folder",
    "register_all_ddl",
    "register_datasets",
]
