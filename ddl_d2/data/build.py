"""The loaders of a config, for training and testing, on Detectron2's."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader, get_detection_dataset_dicts
from torch.utils.data import ConcatDataset, Dataset

from ddl_d2.data import build_faces
from ddl_d2.data.clip_mapper import ClipMapper
from ddl_d2.data.datasets.catalog import CLIP_NAMES
from ddl_d2.data.datasets.clip_columns import ClipColumns
from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.sources import weights_by_dataset
from ddl_d2.data.face_index import FaceIndex, FaceRows, RowsWithWindows, read_index
from ddl_d2.data.face_swap_mapper import build_face_swap_mapper
from ddl_d2.data.forge_spans import build_span_forger
from ddl_d2.data.forging_augmentations import build_forge
from ddl_d2.data.loader import BatchesOfOneSize, Mapper, TrainLoader, one_opencv_thread
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import ClassBalancedSampler, InterleavedSampler, StatefulSampler, TrainingSampler
from ddl_d2.data.self_blending_mapper import build_self_blending_mapper
from ddl_d2.data.subset import subset_of
from ddl_d2.data.token_mapper import CachedTokensMapper, check_filled, fitting_settings, open_token_cache
from ddl_d2.errors import ConfigError, DatasetError, ImageReadError
from ddl_d2.faces.crop import FaceCropper
from ddl_d2.utils.processes import guarded

logger = logging.getLogger(__name__)

_ROOTS = {
    "folder": "DATASETS.FOLDER_ROOT",
    "json_list": "DATASETS.JSON_LIST",
    "ff": "DATASETS.FF_ROOT",
    "celeb_df": "DATASETS.CELEB_DF_ROOT",
    "dfdc": "DATASETS.DFDC_ROOT",
    "dfdcp": "DATASETS.DFDCP_ROOT",
    "deepfakebench": "DATASETS.DEEPFAKEBENCH_JSON",
    **{name: f"DATASETS.{key}" for name, key in CLIP_NAMES.items()},
}
"""How names of datasets begin that are registered only where the key says where they lie."""


def build_train_loader(cfg: CfgNode, *, mapper: Mapper | None = None) -> TrainLoader:
    """Build the training loader of a config: DATASETS.TRAIN, INPUT.*, DATALOADER.*, SOLVER.IMS_PER_BATCH, SEED.

    Args:
        cfg: a full config.
        mapper: replaces `ForgeryDatasetMapper(cfg, True)`.

    Raises:
        DatasetError: a dataset cannot be loaded, has images without a label, or one class only for a balanced sampler.
        ConfigError: DATASETS.SOURCES, DATALOADER.MAX_BAD_SHARE or the sampler's name is not as it should be.
    """
    rows, weights = training_rows(cfg)
    labels = dataset_labels(rows)
    pairs = build_faces.makes_pairs(cfg)
    if pairs:
        rows, real = _real_only(rows, labels, cfg.DATASETS.TRAIN)
        labels, weights = labels[real], weights[real]
    if not 0 <= cfg.DATALOADER.MAX_BAD_SHARE <= 1:
        raise ConfigError(f"DATALOADER.MAX_BAD_SHARE is {cfg.DATALOADER.MAX_BAD_SHARE}: it must be in [0, 1]")
    unlabeled = int((labels < 0).sum())
    if unlabeled and not pairs:
        names = ", ".join(cfg.DATASETS.TRAIN)
        raise DatasetError(
            f"{names}: {unlabeled} of {len(labels)} images have no real/fake label, "
            "which training needs: put them into folders real/ and fake/ (in small letters), or into a list with labels"
        )
    if not pairs and not _forges(cfg) and not (labels == 1).any():
        raise DatasetError(
            f"{', '.join(cfg.DATASETS.TRAIN)}: all {len(labels)} images are real, and nothing forges any: there is "
            "nothing to learn. Add fakes (a folder fake/ beside real/), or set INPUT.SELF_BLEND.ENABLED True "
            "(for clips INPUT.SPANS.ENABLED True)"
        )
    sampler = build_sampler(cfg.DATALOADER.SAMPLER_TRAIN, labels, weights=weights, seed=_seed(cfg))
    return TrainLoader(
        rows, mapper=mapper or build_train_mapper(cfg), sampler=sampler, labels=labels, **_loader_settings(cfg)
    )


def _seed(cfg: CfgNode) -> int | None:
    return cfg.SEED if cfg.SEED >= 0 else None


def _loader_settings(cfg: CfgNode) -> dict[str, Any]:
    """How any training loader batches and reads, as arguments of `TrainLoader`."""
    return {
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "max_bad_share": cfg.DATALOADER.MAX_BAD_SHARE,
        "worker_timeout": cfg.ENGINE.HANG_TIMEOUT,
        "parts": cfg.SOLVER.ACCUMULATION_PARTS,
        "pinned": cfg.MODEL.DEVICE.startswith("cuda"),
    }


def build_adaptation_loader(cfg: CfgNode, *, mapper: Mapper | None = None) -> TrainLoader:
    """Build the loader of test-time adaptation: the images of DATASETS.TRAIN as in testing, and nothing of their truth.

    Args:
        cfg: a full config.
        mapper: replaces that of `build_test_loader`.

    Raises:
        ConfigError: images are cut to faces, which the segmentor would be adapted to one by one.
    """
    if cfg.INPUT.FACE_CROP.ENABLED:
        raise ConfigError("adaptation takes whole images: set INPUT.FACE_CROP.ENABLED False")
    parts = [Unlabeled(all_rows(name)) for name in cfg.DATASETS.TRAIN]
    rows: Any = parts[0] if len(parts) == 1 else ConcatDataset(parts)
    return TrainLoader(
        rows,
        mapper=mapper or _test_mapper(cfg, crop=None),
        sampler=TrainingSampler(len(rows), seed=_seed(cfg)),
        **_loader_settings(cfg),
    )


class Unlabeled(Dataset):
    """Dataset dicts without their labels and masks: of each only what finds and names its image.

    Args:
        rows: dataset dicts.
    """

    _KEPT = ("file_name", "image_id", "video_id", "frame_index")

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {key: row[key] for key in self._KEPT if key in row}


def training_rows(cfg: CfgNode) -> tuple[Any, np.ndarray]:
    """Load the rows of DATASETS.TRAIN, one set after the other, and the weight of each: its source's, else 1.

    They are images, or with INPUT.FACE_CROP.TRAIN_FACE "each" their face crops.
    """
    given = weights_by_dataset(cfg.DATASETS.SOURCES)
    check_dataset_names(cfg.DATASETS.TRAIN)
    parts = [_rows_for(cfg, name) for name in cfg.DATASETS.TRAIN]
    if _each_face(cfg):
        indexes = [_index_of(cfg, name, part) for name, part in zip(cfg.DATASETS.TRAIN, parts, strict=True)]
        parts = [FaceRows(part, index) for part, index in zip(parts, indexes, strict=True)]
    weights = [np.full(len(part), given.get(name, 1.0)) for name, part in zip(cfg.DATASETS.TRAIN, parts, strict=True)]
    return parts[0] if len(parts) == 1 else ConcatDataset(parts), np.concatenate(weights)


def _each_face(cfg: CfgNode) -> bool:
    """Return whether each face crop is a training row; pairs have crops of their own."""
    crop = cfg.INPUT.FACE_CROP
    return crop.ENABLED and crop.TRAIN_FACE == "each" and not build_faces.makes_pairs(cfg)


def _index_of(cfg: CfgNode, name: str, rows: Any) -> FaceIndex:
    """Read the face index of a dataset."""
    folder = cfg.INPUT.FACE_CROP.INDEX
    if not folder:
        raise ConfigError(
            'INPUT.FACE_CROP.TRAIN_FACE "each" needs an index of the faces: make one with `ddl-d2 index-faces '
            "--config-file ... --output faces`, and set INPUT.FACE_CROP.INDEX faces"
        )
    return read_index(index_path(folder, name), build_faces.crop_settings(cfg), rows)


def index_path(folder: str, dataset_name: str) -> str:
    """Return where the face index of a dataset lies in a folder of them."""
    return os.path.join(folder, f"{dataset_name}.csv")


def check_dataset_names(names: Sequence[str]) -> None:
    """Refuse names of datasets that are not registered.

    Raises:
        ConfigError: says what to set for one of this project's, or which names are close.
    """
    registered = DatasetCatalog.list()
    for name in names:
        if name in registered:
            continue
        key = next((key for start, key in _ROOTS.items() if name == start or name.startswith(f"{start}_")), None)
        if key:
            raise ConfigError(f"dataset {name!r} is not registered: set {key} to where it lies")
        close = difflib.get_close_matches(name, [*registered, *_ROOTS], n=3)
        meant = (
            f"did you mean {' or '.join(close)}?" if close else "`ddl-d2 train --help` and docs/datasets.md list them"
        )
        raise ConfigError(f"dataset {name!r} (DATASETS.TRAIN or TEST) is not registered: {meant}")


def build_train_mapper(cfg: CfgNode) -> Mapper:
    """Build the training mapper that INPUT (face crops, forging, augmentations, clips) or a token cache ask for."""
    if cfg.INPUT.CLIP.ENABLED:
        return build_clip_mapper(cfg, True)
    if cfg.MODEL.LOUPE.TOKEN_CACHE:
        cache = open_token_cache(cfg)
        check_filled(cache, training_rows(cfg)[0], max_pixels=cfg.INPUT.MAX_PIXELS)
        return CachedTokensMapper(cfg, True, cache=cache)
    crop = build_faces.build_face_crop(cfg, True)
    if cfg.INPUT.FACE_SWAP.ENABLED:
        return build_face_swap_mapper(cfg, build_faces.build_face_finder(cfg), training_rows(cfg)[0])
    if cfg.INPUT.SELF_BLEND.ENABLED:
        return build_self_blending_mapper(cfg, build_faces.build_face_finder(cfg), crop=crop)
    return ForgeryDatasetMapper(cfg, True, crop=crop, forge=build_forge(cfg))


def build_clip_mapper(cfg: CfgNode, is_train: bool) -> ClipMapper:
    """Build the mapper of a config with INPUT.CLIP.ENABLED.

    Raises:
        ConfigError: as `ClipMapper` and `build_span_forger`.
        FaceFinderUnavailableError: a library or model is missing.
    """
    forges = is_train and cfg.INPUT.SPANS.ENABLED
    finder = build_faces.build_face_finder(cfg) if forges or cfg.INPUT.CLIP.FACE_CROP else None
    forge = build_span_forger(cfg, finder, training_rows(cfg)[0]) if forges and finder is not None else None
    return ClipMapper(cfg, is_train, finder=finder if cfg.INPUT.CLIP.FACE_CROP else None, forge=forge)


def _forges(cfg: CfgNode) -> bool:
    """Return whether training images are forged on the way, without making pairs."""
    blend, augment, spans = cfg.INPUT.SELF_BLEND, cfg.INPUT.AUGMENT, cfg.INPUT.SPANS
    if cfg.INPUT.CLIP.ENABLED:
        return spans.ENABLED and spans.PROB > 0
    return (blend.ENABLED and blend.PROB > 0) or augment.COPY_MOVE_PROB > 0 or augment.INPAINT_PROB > 0


def _real_only(rows: Any, labels: np.ndarray, names: Sequence[str]) -> tuple[Any, np.ndarray]:
    """The images to self-blend, and which they are: all but the fakes; those without a label are the user's real."""
    real = np.flatnonzero(labels != 1)
    if not len(real):
        raise DatasetError(f"{', '.join(names)}: no real image to self-blend (INPUT.SELF_BLEND)")
    if len(real) < len(labels):
        logger.info("self-blending pairs: %d fake images of the training set are left out", len(labels) - len(real))
    return torch.utils.data.Subset(rows, real.tolist()), real


def build_test_loader(cfg: CfgNode, dataset_name: str, *, mapper: Mapper | None = None) -> BatchesOfOneSize:
    """Build a loader of every image of a dataset once, TEST.BATCH_SIZE of one size at a time; each rank its share.

    An image that cannot be read does not end the loader: its row is the dataset dict without `image`, and says why
    under `unreadable` (see `UnreadableTolerated`).

    With MODEL.LOUPE.TOKEN_CACHE rows have the tokens that are there; without, an `image` (see `CachedTokensMapper`).

    Args:
        cfg: a full config.
        dataset_name: a registered one.
        mapper: replaces `ForgeryDatasetMapper(cfg, False)`.
    """
    rows: Any = _rows_for(cfg, dataset_name)
    chosen = subset_of(rows, dataset_labels(rows), cfg.TEST.MAX_IMAGES)
    indexed = cfg.INPUT.FACE_CROP.ENABLED and bool(cfg.INPUT.FACE_CROP.INDEX)
    if indexed:
        rows = RowsWithWindows(rows, _index_of(cfg, dataset_name, rows))
    if chosen is not None:
        rows = torch.utils.data.Subset(rows, chosen.tolist())
    if mapper is None and cfg.INPUT.CLIP.ENABLED:
        mapper = build_clip_mapper(cfg, False)
    mapper = mapper or _test_mapper(cfg, crop=None if indexed else build_faces.build_face_crop(cfg, False))
    if cfg.DATALOADER.NUM_WORKERS:
        one_opencv_thread()
    loader = build_detection_test_loader(
        rows,
        mapper=UnreadableTolerated(mapper),
        sampler=InterleavedSampler(len(rows)),
        batch_size=cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    guarded(loader, cfg.ENGINE.HANG_TIMEOUT, pinned=cfg.MODEL.DEVICE.startswith("cuda"))
    return BatchesOfOneSize(loader, cfg.TEST.BATCH_SIZE)


def _test_mapper(cfg: CfgNode, *, crop: FaceCropper | None) -> Mapper:
    """Build the testing mapper, from the token cache where that holds what this config's images are shown as."""
    cached = cfg.MODEL.LOUPE.TOKEN_CACHE and not (cfg.TEST.AUG.ENABLED or cfg.TEST.TILE.SIZE)
    if cached and fitting_settings(cfg, True) == fitting_settings(cfg, False):
        return CachedTokensMapper(cfg, False, cache=open_token_cache(cfg))
    return ForgeryDatasetMapper(cfg, False, crop=crop)


def test_rows(cfg: CfgNode, dataset_name: str) -> Sequence[Mapping[str, Any]]:
    """Load the rows of a dataset that are evaluated: all, or with TEST.MAX_IMAGES a part (see `subset_of`)."""
    rows = all_rows(dataset_name)
    chosen = subset_of(rows, dataset_labels(rows), cfg.TEST.MAX_IMAGES)
    if chosen is None:
        return rows
    return rows.select(chosen) if isinstance(rows, DatasetColumns) else [rows[i] for i in chosen.tolist()]


def all_rows(dataset_name: str) -> Any:
    """Load the rows of a registered dataset. Raises as `check_dataset_names`."""
    check_dataset_names([dataset_name])
    return get_detection_dataset_dicts(dataset_name, filter_empty=False)


def _rows_for(cfg: CfgNode, dataset_name: str) -> Any:
    """Load the rows of a dataset, which must be of the kind that the system sees: images, or clips with sound.

    Raises:
        ConfigError: they are of the other kind; besides as `check_dataset_names`.
    """
    rows = all_rows(dataset_name)
    system = cfg.MODEL.META_ARCHITECTURE
    if isinstance(rows, ClipColumns) and not cfg.INPUT.CLIP.ENABLED:
        raise ConfigError(f"dataset {dataset_name!r} holds clips, but {system} sees images (INPUT.CLIP.ENABLED False)")
    if isinstance(rows, DatasetColumns) and not isinstance(rows, ClipColumns) and cfg.INPUT.CLIP.ENABLED:
        raise ConfigError(f"dataset {dataset_name!r} holds images, but {system} sees clips (INPUT.CLIP.ENABLED True)")
    return rows


class UnreadableTolerated:
    """A mapper that returns a row whose image cannot be read as it is, with the `ImageReadError` under `unreadable`.

    Args:
        mapper: maps all other rows.
    """

    def __init__(self, mapper: Mapper) -> None:
        self.mapper = mapper

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """Map one dataset dict."""
        try:
            return self.mapper(row)
        except ImageReadError as error:
            # Not the exception that was caught: with its frames it would hold the file's content.
            return {**row, "unreadable": ImageReadError(error.path, error.reason)}


def build_sampler(
    name: str, labels: np.ndarray, *, weights: np.ndarray | None = None, seed: int | None
) -> StatefulSampler:
    """Build a sampler.

    Args:
        name: "TrainingSampler" or "ClassBalancedSampler".
        labels: of every row, 0 or 1.
        weights: of every row; see `StatefulSampler`.
        seed: see `StatefulSampler`.

    Raises:
        ConfigError: another name.
        DatasetError: as the sampler.
    """
    if name == "TrainingSampler":
        return TrainingSampler(len(labels), weights=weights, seed=seed)
    if name == "ClassBalancedSampler":
        return ClassBalancedSampler(labels, weights=weights, seed=seed)
    raise ConfigError(f'DATALOADER.SAMPLER_TRAIN {name!r} is neither "TrainingSampler" nor "ClassBalancedSampler"')


def dataset_labels(rows: Any) -> np.ndarray:
    """Return the int8 label of every row: 0 real, 1 fake, -1 unknown."""
    labels = getattr(rows, "labels", None)
    if labels is not None:
        return labels
    parts = getattr(rows, "datasets", None)
    if parts is not None:
        return np.concatenate([dataset_labels(part) for part in parts])
    return np.array([row.get("is_fake", -1) for row in rows], dtype=np.int8)
