"""The mapper that people write with Detectron2's own parts, given the draws of ours: for benchmark_data.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform, color_augmentation
from detectron2.structures import BitMasks, Instances
from PIL import Image

from ddl_d2.data.loader import seeded
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.data.transforms.crop import CroppedResize, RandomCropKeepingForgery
from ddl_d2.data.transforms.photometric import AppearanceSteps, DrawnDistortion, PhotometricDistortion, PointwiseColor
from ddl_d2.data.transforms.resize import AntialiasedResize
from ddl_d2.io.image import read_image

Row = Mapping[str, Any]


class Script:
    """Stands for the module `random`: gives the answers it was made with, in their order."""

    def __init__(self, answers: Sequence[float]) -> None:
        self.answers = list(answers)

    def randrange(self, _: int) -> int:
        return int(self.answers.pop(0))

    def uniform(self, *_: float) -> float:
        return self.answers.pop(0)

    def randint(self, *_: int) -> int:
        return int(self.answers.pop(0))


class ReplayedColor(ColorAugSSDTransform):
    """Point-Rend's transform, unchanged, with the draws of one of ours."""

    def __init__(self, drawn: DrawnDistortion) -> None:
        super().__init__("RGB")
        brightness, contrast, saturation, hue = (
            [0] if value is None else [1, value]
            for value in (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
        )
        later = [*contrast, *saturation, *hue] if drawn.contrast_first else [*saturation, *hue, *contrast]
        self.answers = [*brightness, int(drawn.contrast_first), *later]

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        dice, color_augmentation.random = color_augmentation.random, Script(self.answers)
        try:
            return super().apply_image(img, interp)
        finally:
            color_augmentation.random = dice


class ConstrainedCrop(T.CropTransform):
    """A crop drawn under a constraint on its classes, and the corners (top, left) of all crops drawn for it."""

    def __init__(self, crop: T.CropTransform, corners: Sequence[tuple[int, int]]) -> None:
        super().__init__(crop.x0, crop.y0, crop.w, crop.h, crop.orig_w, crop.orig_h)
        self.corners = corners

    def count_classes(self, mask: np.ndarray) -> None:
        """The constraint of `T.RandomCrop_CategoryAreaConstraint`, for each of the crops."""
        for top, left in self.corners:
            _, counts = np.unique(mask[top : top + self.h, left : left + self.w], return_counts=True)
            _ = len(counts) > 1 and counts.max() < counts.sum() * 0.75


class Drawn(NamedTuple):
    """What was drawn that our transforms do not say."""

    distortions: list[DrawnDistortion]
    corners: list[tuple[int, int]]


class Plan(NamedTuple):
    """What was drawn for one image: our transforms, and the same in Detectron2's classes."""

    ours: list[T.Transform]
    usual: list[T.Transform]


def draw_plan(mapper: ForgeryDatasetMapper, row: Row, seed: int) -> Plan:
    """The transforms that our mapper uses for `row` after the same seed."""
    image = read_image(row["file_name"])
    given = T.AugInput(image, sem_seg=forgery_mask(row, image).view(np.uint8) if mapper.is_train else None)
    drawn = Drawn([], [])
    with (
        seeded(0, seed),
        _remembered(PhotometricDistortion, "draw", drawn.distortions),
        _remembered(RandomCropKeepingForgery, "draw_corner", drawn.corners),
    ):
        ours = list(mapper.augmentations(given).transforms)
    if not any(_is_constrained(augmentation) for augmentation in mapper.augmentations.augs):
        drawn.corners.clear()  # Detectron2 then counts nothing either
    return Plan(ours, [usual for transform in ours for usual in _usual(transform, drawn)])


def _is_constrained(augmentation: T.Augmentation) -> bool:
    crop = getattr(augmentation, "crop", augmentation)
    return isinstance(crop, RandomCropKeepingForgery) and crop.single_category_max_area < 1


def _remembered(owner: type, name: str, results: list[Any]) -> Any:
    """A context in which the method's results are also put into the list."""
    method = getattr(owner, name)

    def remember(*args: Any) -> Any:
        results.append(method(*args))
        return results[-1]

    return mock.patch.object(owner, name, remember)


def _usual(transform: T.Transform, drawn: Drawn) -> list[T.Transform]:
    if isinstance(transform, CroppedResize):
        return [*_usual(transform.resize, drawn), *_usual(transform.crop, drawn)]
    if isinstance(transform, AntialiasedResize):
        return [T.ResizeTransform(*transform.source, *transform.target, Image.Resampling.BILINEAR)]
    if isinstance(transform, T.CropTransform):
        return [ConstrainedCrop(transform, drawn.corners)]
    if isinstance(transform, T.HFlipTransform):
        return [T.HFlipTransform(transform.width)]
    if isinstance(transform, T.VFlipTransform):
        return [T.VFlipTransform(transform.height)]
    if isinstance(transform, PointwiseColor):
        return [ReplayedColor(drawn.distortions[0])]
    if isinstance(transform, (T.NoOpTransform, AppearanceSteps)):
        return [transform]
    raise TypeError(f"{type(transform).__name__} has no counterpart in Detectron2")


def forgery_mask(row: Row, image: np.ndarray) -> np.ndarray:
    """Bool H x W, as our mapper reads it. Raises OSError for a fake without a mask."""
    truth = read_forgery_mask(row, *image.shape[:2])
    if truth is None:
        raise OSError(f"{row['file_name']}: its forgery mask is not known")
    return truth.mask


def _usual_mask(row: Row, image: np.ndarray) -> np.ndarray:
    if not row.get("mask_file_name"):
        return np.zeros(image.shape[:2], np.uint8)
    return (detection_utils.read_image(row["mask_file_name"], format="L") >= 128).astype(np.uint8).squeeze()


def _usual_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _usual_instances(mask: np.ndarray) -> Instances:
    instances = Instances(mask.shape)
    masks = [mask == 1] if mask.any() else []
    instances.gt_classes = torch.zeros(len(masks), dtype=torch.int64)
    tensors = [torch.from_numpy(np.ascontiguousarray(part.copy())) for part in masks]
    instances.gt_masks = BitMasks(torch.stack(tensors) if tensors else torch.zeros((0, *mask.shape)))
    return instances


def usual_mapper(row: Row, transforms: Sequence[T.Transform], is_train: bool, stage: Callable[[str], Any]) -> dict:
    """One model input in the usual way."""
    result = dict(row)
    with stage("decode"):
        image = detection_utils.read_image(row["file_name"], format="RGB")
    mask = None
    if is_train:
        with stage("mask decode"):
            mask = _usual_mask(row, image)
    for transform in transforms:
        if mask is not None and isinstance(transform, ConstrainedCrop):
            with stage("crop draws"):
                transform.count_classes(mask)
        with stage(stage_of(transform)):
            image = transform.apply_image(image)
        if mask is not None:
            with stage("mask transforms, instances"):
                mask = transform.apply_segmentation(mask)
    with stage("tensor"):
        result["image"] = _usual_tensor(image)
    if mask is not None:
        with stage("mask transforms, instances"):
            result["forgery_mask"] = torch.from_numpy(np.ascontiguousarray(mask) == 1)
            result["instances"] = _usual_instances(mask)
    return result


def stage_of(transform: T.Transform) -> str:
    """What an image's time in `transform` counts as."""
    if isinstance(transform, (AntialiasedResize, CroppedResize, T.ResizeTransform)):
        return "resize"
    if isinstance(transform, (PointwiseColor, ColorAugSSDTransform)):
        return "color"
    return "JPEG" if isinstance(transform, AppearanceSteps) else "crop, flip"
