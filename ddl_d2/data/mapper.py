"""The mapper, dataset dict -> model input; what varies is handed to it as small functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from ddl_d2.data.targets import forgery_mask_to_instances, read_forgery_mask
from ddl_d2.data.transforms.build import build_augmentations, build_views
from ddl_d2.errors import ConfigError, DatasetError, ImageReadError
from ddl_d2.faces.crop import FaceWindow, Window, cut, nose_box, nose_points
from ddl_d2.io.file_kinds import file_kind
from ddl_d2.io.image import mask_coding
from ddl_d2.io.rows import read_row_image
from ddl_d2.utils.limits import MAX_PIXELS

EMPTY_POLICIES = ("keep", "relabel")

# Image -> the windows of it that are shown instead of the whole: one in training, all that there are in testing.
Crop = Callable[[np.ndarray], Sequence[FaceWindow]]

# (image, mask, row) -> (image, mask, is_fake): turns a real image into a forged one while training.
Forge = Callable[[np.ndarray, np.ndarray, Mapping[str, Any]], tuple[np.ndarray, np.ndarray, int]]


class ForgeryDatasetMapper:
    """Detectron2's dataset mapper for forgeries: reads, augments and packs an image, and in training its mask.

    The result holds everything of the dataset dict, and

    - `image`: uint8 RGB tensor, 3 x H x W, after augmentation; not padded (the model pads its batch),
    - `height`, `width`: of the image as stored on disk (after its EXIF orientation),

    in testing with a `crop` instead of `image`

    - `crops`: one {`image`: as above, `window`: (x0, y0, x1, y1) in pixels of the image as stored} for each window
      (what a system makes of them: `modeling/test_time/faces.py`),
    - `has_face`: False where no face was found, and the one window is the whole image,

    (so, too, for a row that brings `windows` and `has_face` itself, as those of a face index do), and in training

    - `is_fake`: 0 or 1, for what is shown (see `empty_policy`); a window of `crop`, or the row's own `window`, in which
      nothing is forged is real,
    - `forgery_mask`: bool tensor, H x W,
    - `instances`: `gt_classes` and `gt_masks`, possibly none (see `forgery_mask_to_instances`),
    - `localization_valid`: False for a fake whose mask is not known. Its `forgery_mask` and `instances` are then empty
      and mean nothing: a criterion must leave the image out of its localization losses,
    - `mask_resized`: True where the mask file had another size than the image,
    - `nose_box`, if asked for and if `crop` found a face whose nose is still in `image`: float tensor (x0, y0, x1, y1)
      in pixels of `image`; see `faces.crop.nose_box`.

    Args:
        is_train: whether targets are made.
        augmentations: applied in order to image and mask.
        instance_mode: "union" or "connected_components", see `forgery_mask_to_instances`.
        num_classes: 1 (forged) or 2 (authentic, forged).
        min_instance_area: connected components of fewer pixels are dropped.
        empty_policy: a fake whose crop shows no forged pixel "keep"s its label or is "relabel"led real.
        max_pixels: the most pixels an image may have.
        crop: called on each image first, to cut it (see `Crop`).
        forge: called on each training image (cut) before the augmentations (see `Forge`).
        nose_box: whether training rows carry it.
        views: in testing, other ways to fit an image (see `transforms.build.build_views`): rows, or their crops, also
            hold `views`, the image after each of them.

    Raises:
        ConfigError: an unknown `empty_policy`.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation],
        instance_mode: str = "union",
        num_classes: int = 1,
        min_instance_area: int = 16,
        empty_policy: str = "keep",
        max_pixels: int = MAX_PIXELS,
        crop: Crop | None = None,
        forge: Forge | None = None,
        nose_box: bool = False,
        views: Sequence[T.Augmentation] = (),
    ) -> None:
        if empty_policy not in EMPTY_POLICIES:
            raise ConfigError(f"INPUT.CROP.EMPTY_POLICY {empty_policy!r} is not one of {', '.join(EMPTY_POLICIES)}")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.instance_mode = instance_mode
        self.num_classes = num_classes
        self.min_instance_area = min_instance_area
        self.empty_policy = empty_policy
        self.max_pixels = max_pixels
        self.crop = crop
        self.forge = forge
        self.nose_box = nose_box
        self.views = views

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, **overrides: Any) -> dict[str, Any]:
        """Read the constructor's arguments from INPUT; `overrides` replace them."""
        if cfg.INPUT.FORMAT != "RGB":
            raise ConfigError(f'INPUT.FORMAT must be "RGB", not {cfg.INPUT.FORMAT!r}')
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "instance_mode": cfg.INPUT.INSTANCES,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "min_instance_area": cfg.INPUT.MIN_INSTANCE_AREA,
            "empty_policy": cfg.INPUT.CROP.EMPTY_POLICY,
            "max_pixels": cfg.INPUT.MAX_PIXELS,
            "nose_box": cfg.INPUT.FACE_CROP.NOSE_BOX,
            "views": build_views(cfg),
            **overrides,
        }

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Map one dataset dict; see the class.

        Raises:
            ImageReadError: the image or its mask cannot be read, or the mask of a fake marks nothing as forged.
            DatasetError: a training image without a label.
        """
        row, image = self.read(dataset_dict)
        if not self.is_train:
            if "windows" in row:
                return row | windows_input(image, self.augmentations, row.pop("windows"), row["has_face"], self.views)
            return row | inference_input(image, self.augmentations, self.crop, self.views)
        truth = read_forgery_mask(row, *image.shape[:2], max_pixels=self.max_pixels)
        if row["is_fake"] and truth is not None and not truth.mask.any():
            raise ImageReadError(row.get("mask_file_name", row["file_name"]), _why_empty(row, self.max_pixels))
        mask = np.zeros(image.shape[:2], dtype=bool) if truth is None else truth.mask
        nose, window, face = None, row.pop("window", None), None
        if window is None and self.crop is not None:
            ((window, face),) = self.crop(image)
        if window is not None:
            image, mask = cut(image, window), cut(mask, window)
            # Not left to `empty_policy`: a random crop may miss what is forged in a face, but a face is forged or not.
            if row["is_fake"] and truth is not None and not mask.any():
                row["is_fake"] = 0
            if self.nose_box and face is not None:
                nose = nose_points(face.landmarks) - window[:2]
        is_fake = int(row["is_fake"])
        if self.forge is not None:
            image, mask, is_fake = self.forge(image, mask, row)
        image, mask, transforms = self.augment(image, mask)
        self.add_targets(row, image, mask, is_fake=is_fake, known=truth is not None)
        row["mask_resized"] = truth is not None and truth.resized
        box = None if nose is None else nose_box(transforms.apply_coords(nose), image.shape[:2])
        if box is not None:
            row["nose_box"] = torch.tensor(box)
        return row

    def read(self, dataset_dict: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
        """Read the image: a copy of the dataset dict with its size in it, and uint8 H×W×3. Raises as a call."""
        row = dict(dataset_dict)
        if self.is_train and row.get("is_fake") not in (0, 1):
            raise DatasetError(f"{row['file_name']}: has no real/fake label (is_fake), which training needs")
        image = read_row_image(row, max_pixels=self.max_pixels)
        row["height"], row["width"] = image.shape[:2]
        return row, image

    def augment(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, T.TransformList]:
        """Augment an image and its bool mask; returns both, and the transforms that were drawn."""
        augmented = T.AugInput(image, sem_seg=mask.view(np.uint8))
        transforms = self.augmentations(augmented)
        return augmented.image, np.array(augmented.sem_seg, dtype=bool, order="C"), transforms

    def add_targets(
        self, row: dict[str, Any], image: np.ndarray, mask: np.ndarray, *, is_fake: int, known: bool
    ) -> None:
        """Put an augmented training image and what is to be learnt from it into `row`; see the class."""
        if is_fake and known and self.empty_policy == "relabel" and not mask.any():
            is_fake = 0
        row["image"] = to_tensor(image)
        row["is_fake"] = is_fake
        row["forgery_mask"] = torch.from_numpy(mask)
        instances = forgery_mask_to_instances(
            mask, mode=self.instance_mode, num_classes=self.num_classes, min_area=self.min_instance_area
        )
        row["instances"] = instances if known else instances[:0]  # not even an authentic region is known
        row["localization_valid"] = known


def _why_empty(row: Mapping[str, Any], max_pixels: int) -> str:
    """Say why the mask of a fake image shows nothing forged; its gray values tell a coding such as {0, 2}."""
    said = "the mask of a fake image marks nothing as forged"
    path = row.get("mask_file_name")
    if not path or file_kind(path) == "video":
        return said
    return f"{said}: its {mask_coding(path, max_pixels=max_pixels)}"


def inference_input(
    image: np.ndarray,
    augmentation: T.Augmentation,
    crop: Crop | None,
    views: Sequence[T.Augmentation] = (),
    spread_views: Sequence[T.Augmentation] = (),
) -> dict[str, Any]:
    """Make what a network gets of an image in testing.

    Args:
        image: uint8 H×W×3 RGB.
        augmentation: applied to the image, or to each crop of it.
        crop: chooses the crops; None for the whole image.
        views: applied to the image, or to each crop of it, for other views of the same.
        spread_views: likewise, for views that only say how far views differ.

    Returns:
        `image` (and `views` and `spread_views`, if asked for), or `crops` and `has_face`; and `height` and `width`, see
        `ForgeryDatasetMapper`.
    """
    if crop is None:
        size = {"height": image.shape[0], "width": image.shape[1]}
        return _seen(image, augmentation, views, spread_views) | size
    chosen = crop(image)
    has_face = any(found.face is not None for found in chosen)
    windows = [found.window for found in chosen]
    return windows_input(image, augmentation, windows, has_face, views, spread_views)


def windows_input(
    image: np.ndarray,
    augmentation: T.Augmentation,
    windows: Sequence[Window],
    has_face: bool,
    views: Sequence[T.Augmentation] = (),
    spread_views: Sequence[T.Augmentation] = (),
) -> dict[str, Any]:
    """Make what a network gets of an image whose windows are known: `crops`, `has_face`, `height` and `width`."""
    crops = [_seen(cut(image, one), augmentation, views, spread_views) | {"window": one} for one in windows]
    return {"crops": crops, "has_face": has_face, "height": image.shape[0], "width": image.shape[1]}


def _seen(
    image: np.ndarray,
    augmentation: T.Augmentation,
    views: Sequence[T.Augmentation],
    spread_views: Sequence[T.Augmentation],
) -> dict[str, Any]:
    row: dict[str, Any] = {"image": _augmented(image, augmentation)}
    more = {"views": views, "spread_views": spread_views}
    return row | {name: [_augmented(image, view) for view in some] for name, some in more.items() if some}


def _augmented(image: np.ndarray, augmentation: T.Augmentation) -> torch.Tensor:
    given = T.AugInput(image)
    augmentation(given)
    return to_tensor(given.image)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Turn uint8 H x W x 3 into a contiguous uint8 tensor 3 x H x W."""
    planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
    cv2.split(image, list(planes))  # in place, and ten times as fast as copying a transposed view
    return torch.from_numpy(planes)
