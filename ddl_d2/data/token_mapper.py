"""The mappers around a cache of tokens: one that fills it with images, and one whose rows have tokens for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from ddl_d2.data.mapper import ForgeryDatasetMapper, to_tensor
from ddl_d2.data.token_cache import TokenCache, image_key
from ddl_d2.errors import ConfigError, DatasetError, ImageReadError
from ddl_d2.io.rows import read_row_image

_FILL_AGAIN = "Run `ddl-d2 cache-tokens` again, which adds what is missing"
_LOOKED_AT = 4096


def open_token_cache(cfg: CfgNode) -> TokenCache:
    """Open MODEL.LOUPE.TOKEN_CACHE for a config whose images are always the same.

    Raises:
        ConfigError: images are augmented, forged or cropped.
        DatasetError: the folder is missing or damaged.
    """
    refuse_changing_images(cfg)
    return TokenCache(cfg.MODEL.LOUPE.TOKEN_CACHE)


def refuse_changing_images(cfg: CfgNode) -> None:
    """Refuse a config whose images are not the same each time, or not whole.

    Raises:
        ConfigError: names the keys, and what to do.
    """
    inputs, changing = cfg.INPUT, []
    sizes = inputs.MIN_SIZE_TRAIN
    if 0 not in sizes and inputs.SCALE_RANGE[0] != inputs.SCALE_RANGE[1]:
        changing.append("INPUT.SCALE_RANGE [1.0, 1.0]")
    if len(set(sizes)) > 1:
        changing.append(f"INPUT.MIN_SIZE_TRAIN ({sizes[0]},)")
    changing += [
        f"INPUT.{name} {off}"
        for name, is_on, off in (
            ("CROP.ENABLED", inputs.CROP.ENABLED, "False"),
            ("RANDOM_FLIP", inputs.RANDOM_FLIP != "none", "none"),
            ("COLOR_AUG_SSD", inputs.COLOR_AUG_SSD, "False"),
            ("JPEG_PROB", inputs.JPEG_PROB > 0, "0.0"),
            ("FACE_CROP.ENABLED", inputs.FACE_CROP.ENABLED, "False"),
            ("SELF_BLEND.ENABLED", inputs.SELF_BLEND.ENABLED, "False"),
            ("FACE_SWAP.ENABLED", inputs.FACE_SWAP.ENABLED, "False"),
        )
        if is_on
    ]
    changing += [f"INPUT.AUGMENT.{name} 0.0" for name, value in inputs.AUGMENT.items() if name[-4:] == "PROB" and value]
    if changing:
        raise ConfigError(
            "MODEL.LOUPE.TOKEN_CACHE: tokens stand for images that are whole and the same each time, and this config "
            f"changes them; set {', '.join(changing)}, or leave the cache off"
        )


def fitting_settings(cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
    """Return what decides how an image is fitted before the network sees it, as plain values."""
    inputs = cfg.INPUT
    sizes = (inputs.MIN_SIZE_TEST, inputs.MAX_SIZE_TEST, 1.0)
    if is_train:
        sizes = (inputs.MIN_SIZE_TRAIN[0], inputs.MAX_SIZE_TRAIN, inputs.SCALE_RANGE[0])
    return {"fitted": list(sizes) if sizes[0] else "as they are"}


def check_filled(cache: TokenCache, rows: Sequence[Mapping[str, Any]], *, max_pixels: int) -> None:
    """Refuse a cache without the tokens of readable images: of all, or where there are many of evenly spaced ones.

    Args:
        cache: the tokens that are there.
        rows: dataset dicts.
        max_pixels: the most pixels an image may have.

    Raises:
        DatasetError: says how many are missing, which for instance, and what to do.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, _LOOKED_AT).round().astype(int))
    missing = [row for row in (rows[int(i)] for i in chosen) if not _is_filled(cache, row, max_pixels)]
    if missing:
        raise DatasetError(
            f"{cache.folder}: {len(missing)} of {len(chosen)} training images looked at have no tokens there, such as "
            f"{missing[0]['file_name']}: they are new, or were changed since. {_FILL_AGAIN}"
        )


def _is_filled(cache: TokenCache, row: Mapping[str, Any], max_pixels: int) -> bool:
    """Tell whether an image has tokens, or cannot have any."""
    try:
        if image_key(row) in cache:
            return True
        read_row_image(row, max_pixels=max_pixels)
    except ImageReadError:
        return True
    return False


class UncachedImages(ForgeryDatasetMapper):
    """A mapper of the images whose tokens are missing: the images that training sees, and each one's `key`.

    An image whose tokens are there gives a row without `image`.

    Args:
        cache: the tokens that are there; None: none are.
        **options: as `ForgeryDatasetMapper`.
    """

    @configurable
    def __init__(self, is_train: bool, *, cache: TokenCache | None, **options: Any) -> None:
        super().__init__(is_train, **options)
        self.cache = cache

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Map one dataset dict. Raises ImageReadError."""
        row = {"image_id": dataset_dict["image_id"], "key": image_key(dataset_dict)}
        if self.cache is not None and row["key"] in self.cache:
            return row
        image = read_row_image(dataset_dict, max_pixels=self.max_pixels)
        row |= {"height": image.shape[0], "width": image.shape[1]}
        given = T.AugInput(image)
        self.augmentations(given)
        return row | {"image": to_tensor(given.image)}


class CachedTokensMapper(ForgeryDatasetMapper):
    """A `ForgeryDatasetMapper` whose rows have `tokens` (the encoder's tensors by name) and no `image`.

    In training a row whose image has no tokens counts as one that cannot be read; in testing it has its `image`.

    Args:
        cache: the tokens.
        **options: as `ForgeryDatasetMapper`.
    """

    @configurable
    def __init__(self, is_train: bool, *, cache: TokenCache, **options: Any) -> None:
        super().__init__(is_train, **options)
        self.cache = cache

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Map one dataset dict. Raises as `ForgeryDatasetMapper`."""
        if self.is_train:
            row = super().__call__(dataset_dict)
            del row["image"]
            return row
        found = self.cache.get(image_key(dataset_dict))
        if found is None:
            return super().__call__(dataset_dict)
        return dict(dataset_dict) | found._asdict()

    def read(self, dataset_dict: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
        """Read the tokens of a training image, and give a stand-in of its size for it, which takes no memory."""
        if not self.is_train:
            return super().read(dataset_dict)
        found = self.cache.get(image_key(dataset_dict))
        if found is None:
            read_row_image(dataset_dict, max_pixels=self.max_pixels)  # says so if the image is no image
            raise ImageReadError(
                dataset_dict["file_name"],
                f"has no tokens in {self.cache.folder}: it is new, or was changed since. {_FILL_AGAIN}",
            )
        stand_in = np.broadcast_to(np.uint8(0), (found.height, found.width, 3))
        return dict(dataset_dict) | found._asdict(), stand_in

    def augment(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, T.TransformList]:
        """Fit the mask as its image was fitted; of the stand-in one pixel is left."""
        (fit,) = self.augmentations.augs
        transform = fit.get_transform(image)
        fitted = transform.apply_segmentation(mask.view(np.uint8))
        return np.zeros((1, 1, 3), np.uint8), np.array(fitted, dtype=bool, order="C"), T.TransformList([transform])
