"""Training on swap-like forgeries made on the way: a real portrait in, itself and a forgery of it out.

The forging is `forging.face_swap`; here it meets Detectron2's rows. What is read of a photograph is its face and little
around it, which is kept in memory, so that a worker reads each file once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from ddl_d2.config.dataclass_keys import options_of
from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.data.forging_augmentations import random_generator
from ddl_d2.data.targets import forgery_mask_to_instances
from ddl_d2.errors import ConfigError, DatasetError, ImageReadError
from ddl_d2.faces.crop import face_window
from ddl_d2.faces.face import NUM_LANDMARKS, FaceFinder
from ddl_d2.forging.eigenfaces import Eigenfaces
from ddl_d2.forging.face_autoencoder import FaceAutoencoder
from ddl_d2.forging.face_swap import swap_pair
from ddl_d2.io.rows import read_row_image

# Kept around the box of the landmarks: more than any pair shows of it.
_MARGINS = (0.6, 0.8, 0.6, 0.4)
# Longest side that is kept; faces are forged at less.
_LONGEST = 340
# Side of the aligned faces of eigenfaces, pixels, and the most components.
_EIGEN_SIDE, _EIGEN_COUNT = 80, 240


class FaceSwapMapper:
    """A real image with a face -> [real, forged], alike but for the forgery.

    Each row holds everything of the dataset dict; `image` uint8 3×S×S; `is_fake`; `soft_mask` float32 S×S (zeros for
    the real one); `forgery_mask`, where that is above one half, and `instances` of it; `height` and `width`, S.
    """

    rows_per_sample = 2

    def __init__(
        self,
        finder: FaceFinder,
        options: SwapOptions,
        *,
        eigenfaces: Eigenfaces | None = None,
        autoencoder: FaceAutoencoder | None = None,
        max_pixels: int,
        instance_mode: str = "union",
        num_classes: int = 1,
        min_instance_area: int = 16,
    ) -> None:
        """Keep what pairs are made with.

        Args:
            finder: finds faces and 68 landmarks; give one that remembers (`CachedFaceFinder`).
            options: what forgeries are drawn from.
            eigenfaces: see `swap_pair`, as for the next.
            autoencoder: rebuilds faces and whole images.
            max_pixels: the most pixels an image may have.
            instance_mode: see `forgery_mask_to_instances`, as for the next two.
            num_classes: of instances.
            min_instance_area: pixels.
        """
        self.finder, self.options, self.max_pixels = finder, options, max_pixels
        self.eigenfaces, self.autoencoder = eigenfaces, autoencoder
        self._instances: dict[str, Any] = {
            "mode": instance_mode,
            "num_classes": num_classes,
            "min_area": min_instance_area,
        }
        self._kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Map one dataset dict of a real image.

        Raises:
            ImageReadError: the image cannot be read, or no face is found in it.
        """
        row = dict(dataset_dict)
        image, landmarks = self.face(row)
        real, forged, soft = swap_pair(
            image, landmarks, random_generator(), self.options, self.eigenfaces, self.autoencoder
        )
        nothing = np.zeros_like(soft)
        return [self._row(row, real, nothing, ""), self._row(row, forged, soft, "#face-swap")]

    def face(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The largest face of a row's image with its surroundings (uint8 H×W×3), and its landmarks (68×2).

        Raises:
            ImageReadError: as a call.
        """
        name = row["file_name"]
        if name not in self._kept:
            self._kept[name] = self._read_face(row)
        return self._kept[name]

    def _read_face(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        image = read_row_image(row, max_pixels=self.max_pixels)
        faces = [face for face in self.finder(image) if len(face.landmarks) == NUM_LANDMARKS]
        if not faces:
            raise ImageReadError(row["file_name"], "no face with 68 landmarks is found in it")
        points = max(faces, key=lambda face: face.width).landmarks
        (left, top), (right, bottom) = points.min(0), points.max(0)
        x0, y0, x1, y1 = face_window((left, top, right, bottom), image.shape[:2], margins=_MARGINS)
        cut, points = image[y0:y1, x0:x1], points - (x0, y0)
        ratio = min(1.0, _LONGEST / max(cut.shape[:2]))
        size = (max(8, round(cut.shape[1] * ratio)), max(8, round(cut.shape[0] * ratio)))
        scale = (size[0] / cut.shape[1], size[1] / cut.shape[0])
        return cv2.resize(cut, size, interpolation=cv2.INTER_AREA), points * scale

    def _row(self, row: Mapping[str, Any], image: np.ndarray, soft: np.ndarray, ending: str) -> dict[str, Any]:
        mask = soft > 0.5
        return {
            **row,
            "image_id": f"{row['image_id']}{ending}",
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "is_fake": int(ending != ""),
            "height": image.shape[0],
            "width": image.shape[1],
            "soft_mask": torch.from_numpy(soft),
            "forgery_mask": torch.from_numpy(mask),
            "instances": forgery_mask_to_instances(mask, **self._instances),
            "localization_valid": True,
            "mask_resized": False,
        }


def build_face_swap_mapper(cfg: CfgNode, finder: FaceFinder, rows: Sequence[Mapping[str, Any]]) -> FaceSwapMapper:
    """The training mapper of a config with INPUT.FACE_SWAP.ENABLED.

    Where EIGEN_PROB is above 0, the eigenfaces are made of the faces of `rows`, which are read once.

    Raises:
        ConfigError: a value of INPUT.FACE_SWAP is out of its limits.
        DatasetError: no face is found in any of them.
    """
    options = swap_options(cfg.INPUT.FACE_SWAP)
    mapper = FaceSwapMapper(
        finder,
        options,
        autoencoder=_autoencoder(cfg.INPUT.FACE_SWAP.AUTOENCODER, options),
        max_pixels=cfg.INPUT.MAX_PIXELS,
        instance_mode=cfg.INPUT.INSTANCES,
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        min_instance_area=cfg.INPUT.MIN_INSTANCE_AREA,
    )
    if mapper.options.eigen_prob > 0:
        faces = training_faces(mapper, rows)
        mapper.eigenfaces = Eigenfaces.fitted(faces, side=_EIGEN_SIDE, count=_EIGEN_COUNT)
    return mapper


def _autoencoder(path: str, options: SwapOptions) -> FaceAutoencoder | None:
    if options.autoencoder_prob + options.whole_prob == 0:
        return None
    if not path:
        raise ConfigError(
            "INPUT.FACE_SWAP.AUTOENCODER_PROB and WHOLE_PROB need INPUT.FACE_SWAP.AUTOENCODER, a file that "
            "`ddl-d2 train-autoencoder` makes"
        )
    return FaceAutoencoder.loaded(path)


def training_faces(mapper: FaceSwapMapper, rows: Sequence[Mapping[str, Any]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The faces of the rows in which there is one, as `FaceSwapMapper.face` gives them.

    Raises:
        DatasetError: there is none in any of them.
    """
    faces = []
    for number in range(len(rows)):
        with contextlib.suppress(ImageReadError):  # said again, and counted, when the loader draws it
            faces.append(mapper.face(rows[number]))
    if not faces:
        raise DatasetError(f"none of the {len(rows)} training images has a face with 68 landmarks: nothing to forge")
    return faces


def swap_options(node: CfgNode) -> SwapOptions:
    """INPUT.FACE_SWAP -> what forgeries are drawn from.

    Raises:
        ConfigError: a value out of its limits; names the key.
    """
    try:
        return options_of(SwapOptions, node)
    except ValueError as error:
        raise ConfigError(f"INPUT.FACE_SWAP: {error}") from error
