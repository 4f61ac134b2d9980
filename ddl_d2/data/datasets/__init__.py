"""On-disk layouts -> dataset dicts, and their registration with Detectron2."""

from ddl_d2.data.datasets.catalog import load_config, register_all_ddl, register_datasets
from ddl_d2.data.datasets.columns import DatasetColumns, FrameColumns
from ddl_d2.data.datasets.load import datasets_at, load_dataset, load_deepfakebench, load_folder, load_video_set
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.data.datasets.splits import find_splits
from ddl_d2.data.datasets.video import VideoOptions

__all__ = [
    "DatasetColumns",
    "DatasetReport",
    "FrameColumns",
    "VideoOptions",
    "datasets_at",
    "find_splits",
    "load_config",
    "load_dataset",
    "load_deepfakebench",
    "load_folder",
    "load_video_set",
    "register_all_ddl",
    "register_datasets",
]
