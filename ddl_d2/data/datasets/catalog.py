"""Names for datasets in Detectron2's catalogs.

Registering touches no disk: a dataset is listed when it is first used.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddl_d2.config.load import read_config
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.load import load_clip_set, load_dataset, load_deepfakebench, load_video_set
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.data.datasets.sources import load_source, parse_sources
from ddl_d2.data.datasets.splits import SPLITS
from ddl_d2.data.datasets.video import VideoOptions
from ddl_d2.errors import ConfigError, DatasetError

_logger = logging.getLogger(__name__)
THING_CLASSES = ("forged",)
# Set of videos -> the key with its root, and the splits it has.
VIDEO_NAMES = {
    "ff": ("FF_ROOT", ("train", "valid", "test")),
    "celeb_df": ("CELEB_DF_ROOT", ("train", "test")),
    "dfdc": ("DFDC_ROOT", ("train", "valid", "test")),
    "dfdcp": ("DFDCP_ROOT", ("train", "test")),
    "deepfakebench": ("DEEPFAKEBENCH_JSON", ("train", "valid", "test")),
}
# Set of clips with sound -> the key with its root.
CLIP_NAMES = {"lav_df": "LAV_DF_ROOT", "av_deepfake1m": "AV_DEEPFAKE1M_ROOT", "ddl_av": "DDL_AV_ROOT"}
# Names of sources that the last config registered.
_source_names: set[str] = set()


def load_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Read a config as `read_config` does, and register the datasets that it points at.

    Raises:
        ConfigError: see `read_config` and `register_datasets`.
    """
    cfg = read_config(config_file, opts)
    register_datasets(cfg)
    return cfg


def register_datasets(cfg: CfgNode) -> None:
    """Register the datasets that a config points at.

    Always ddl_i_train, ddl_i_valid and ddl_i_test; and where their key is set "folder", "json_list", the splits of
    sets of videos (`VIDEO_NAMES`) and of clips (`CLIP_NAMES`), such as "ff_train", and those of DATASETS.SOURCES. A
    name that is registered already is replaced, so the last config wins; but no source may take another dataset's name.

    Raises:
        ConfigError: DATASETS.SOURCES is not as it should be, or one of its names is taken.
    """
    policy, video = cfg.DATASETS.FAKE_WITHOUT_MASK, _video_options(cfg)
    register_all_ddl(cfg.DATASETS.DDL_ROOT or None, fake_without_mask=policy, video=video)
    others = {
        "folder": (cfg.DATASETS.FOLDER_ROOT, _load_folder),
        "json_list": (cfg.DATASETS.JSON_LIST, _load_list),
    }
    for name, (path, load) in others.items():
        if path:
            _register(name, path, functools.partial(load, path, fake_without_mask=policy, video=video))
        elif name in DatasetCatalog:
            _forget(name)
    _register_videos(cfg)
    _register_clips(cfg)
    _register_sources(cfg)


def _register_sources(cfg: CfgNode) -> None:
    sources = parse_sources(cfg.DATASETS.SOURCES)
    for name in _source_names.intersection(DatasetCatalog.keys()):
        _forget(name)
    _source_names.clear()
    for source in sources:
        for split, name in source.names.items():
            if source.name in VIDEO_NAMES or source.name in CLIP_NAMES or name in DatasetCatalog:
                raise ConfigError(
                    f"DATASETS.SOURCES: {source.name} would be registered as {name}, which is another dataset's name; "
                    "choose another"
                )
            policy, video = cfg.DATASETS.FAKE_WITHOUT_MASK, _video_options(cfg)
            load = functools.partial(load_source, source, split, fake_without_mask=policy, video=video)
            _register(name, source.root, load)
            _source_names.add(name)


def _register_videos(cfg: CfgNode) -> None:
    sets, options = cfg.DATASETS, _video_options(cfg)
    for kind, (key, splits) in VIDEO_NAMES.items():
        path = sets[key]
        for split in splits:
            name = f"{kind}_{split}"
            if path:
                load = functools.partial(_load_videos, kind, path, split, key, sets.FAKE_WITHOUT_MASK, options)
                _register(name, path, load)
            elif name in DatasetCatalog:
                _forget(name)


def _register_clips(cfg: CfgNode) -> None:
    for kind, key in CLIP_NAMES.items():
        path = cfg.DATASETS[key]
        for split in SPLITS:
            name = f"{kind}_{split}"
            if path:
                _register(name, path, functools.partial(_load_clips, kind, path, split, key), evaluator="ddl_temporal")
            elif name in DatasetCatalog:
                _forget(name)


def _video_options(cfg: CfgNode) -> VideoOptions:
    sets = cfg.DATASETS
    return VideoOptions(
        frames_per_video=sets.FRAMES_PER_VIDEO,
        compression=sets.FF_COMPRESSION,
        methods=tuple(sets.FF_METHODS),
        frame_root=sets.DEEPFAKEBENCH_ROOT,
        max_pixels=cfg.INPUT.MAX_PIXELS,
    )


def register_all_ddl(
    root: str | None = None, *, fake_without_mask: str = "skip", video: VideoOptions | None = None
) -> None:
    """Register ddl_i_train, ddl_i_valid and ddl_i_test.

    Args:
        root: folder that holds the splits, at any depth; None = $DETECTRON2_DATASETS/ddl_i (looked up now).
        fake_without_mask: see `assemble`.
        video: how videos become rows, where there are any.
    """
    folder = root or os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), "ddl_i")
    for split in SPLITS:
        load = functools.partial(load_dataset, folder, split, fake_without_mask=fake_without_mask, video=video)
        _register(f"ddl_i_{split}", folder, load)


def _load_folder(path: str, *, fake_without_mask: str, video: VideoOptions) -> tuple[DatasetColumns, DatasetReport]:
    if not os.path.isdir(os.path.expanduser(path)):
        raise DatasetError(f"{path}: no such folder (DATASETS.FOLDER_ROOT)")
    return load_dataset(path, fake_without_mask=fake_without_mask, video=video)


def _load_list(path: str, *, fake_without_mask: str, video: VideoOptions) -> tuple[DatasetColumns, DatasetReport]:
    if not os.path.isfile(os.path.expanduser(path)):
        raise DatasetError(f"{path}: no such file (DATASETS.JSON_LIST)")
    return load_dataset(path, fake_without_mask=fake_without_mask, video=video)


def _load_videos(
    kind: str, path: str, split: str, key: str, policy: str, options: VideoOptions
) -> tuple[DatasetColumns, DatasetReport]:
    is_list = kind == "deepfakebench"
    given = os.path.expanduser(path)
    if not (os.path.isfile(given) if is_list else os.path.isdir(given)):
        raise DatasetError(f"{path}: no such {'file' if is_list else 'folder'} (DATASETS.{key})")
    if is_list:
        return load_deepfakebench(given, split, fake_without_mask=policy, options=options)
    return load_video_set(kind, given, split, fake_without_mask=policy, options=options)


def _load_clips(kind: str, path: str, split: str, key: str) -> tuple[DatasetColumns, DatasetReport]:
    if not os.path.isdir(os.path.expanduser(path)):
        raise DatasetError(f"{path}: no such folder (DATASETS.{key})")
    return load_clip_set(kind, path, split)


def _register(
    name: str, root: str, load: Callable[[], tuple[DatasetColumns, DatasetReport]], *, evaluator: str = "ddl"
) -> None:
    if name in DatasetCatalog:
        _forget(name)
    DatasetCatalog.register(name, functools.partial(_load_and_report, name, load))
    MetadataCatalog.get(name).set(evaluator_type=evaluator, thing_classes=list(THING_CLASSES), dataset_root=root)


def _forget(name: str) -> None:
    DatasetCatalog.remove(name)
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)


def _load_and_report(name: str, load: Callable[[], tuple[DatasetColumns, DatasetReport]]) -> DatasetColumns:
    try:
        rows, report = load()
    except DatasetError as error:
        raise DatasetError(f"dataset {name}: {error}") from error
    _logger.info("dataset %s: %r%s", name, rows, f" ({report.origin})" if report.origin else "")
    for line in report.lines():
        _logger.warning("dataset %s: %s", name, line)
    return rows
