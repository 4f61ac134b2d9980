"""This project's mapper, step by step, to time each stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from _usual_mapper import Row, forgery_mask, stage_of
from detectron2.data import transforms as T

from ddl_d2.data import mapper as our_code
from ddl_d2.data.loader import seeded
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.targets import forgery_mask_to_instances
from ddl_d2.data.transforms.photometric import PhotometricDistortion
from ddl_d2.io.image import read_image


class Stages:
    """Seconds of processor time by the name of the stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start


def our_stages(mapper: ForgeryDatasetMapper, row: Row, seed: int, stage: Callable[[str], Any]) -> dict:
    """The steps of `ForgeryDatasetMapper`, one by one, to be timed. Drawing a crop counts to the masks."""
    result = dict(row)
    with stage("decode"):
        image = read_image(row["file_name"])
    given = T.AugInput(image)
    if mapper.is_train:
        with stage("mask decode"):
            given.sem_seg = forgery_mask(row, image).view(np.uint8)
    with seeded(0, seed):
        for augmentation in mapper.augmentations.augs:
            color = isinstance(augmentation, PhotometricDistortion)
            with stage("color" if color else "mask transforms, instances"):
                transform = augmentation.get_transform(*_arguments(augmentation, given))
            with stage(stage_of(transform)):
                given.image = transform.apply_image(given.image)
            if given.sem_seg is not None:
                with stage("mask transforms, instances"):
                    given.sem_seg = transform.apply_segmentation(given.sem_seg)
    with stage("tensor"):
        result["image"] = our_code.to_tensor(given.image)
    if given.sem_seg is not None:
        with stage("mask transforms, instances"):
            mask = np.array(given.sem_seg, dtype=bool, order="C")
            result["forgery_mask"] = torch.from_numpy(mask)
            result["instances"] = forgery_mask_to_instances(mask)
    return result


def _arguments(augmentation: T.Augmentation, given: T.AugInput) -> list[Any]:
    names = augmentation.input_args or ("image",)
    return [getattr(given, name) for name in names]
