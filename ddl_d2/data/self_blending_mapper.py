"""Training on images forged on the way: a real image in, itself and a forgery of it out.

Source: multi-part local-displacement self-blending (Sci. Rep. 2025); Shiohara and Yamasaki, Self-Blended Images (CVPR
2022). The forging itself is `forging`; here it meets the mapper and the loader's workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ddl_d2.config.dataclass_keys import options_of
from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions
from ddl_d2.data.forging_augmentations import build_forge, random_generator
from ddl_d2.data.mapper import Crop, ForgeryDatasetMapper
from ddl_d2.data.transforms.photometric import PhotometricTransform
from ddl_d2.errors import ConfigError, ImageReadError
from ddl_d2.faces.crop import crop_around
from ddl_d2.faces.face import Face, FaceFinder
from ddl_d2.forging.appearance import apply_steps, draw_post_steps
from ddl_d2.forging.self_blend import Forgery, NoSuitableFaceError, self_blend, suitable_faces


class SelfBlender:
    """Self-blending of real images; everything is drawn from `np.random`, which the loader seeds.

    Args:
        finder: finds faces; give one that remembers (`CachedFaceFinder`), it is the slowest step by far.
        options: what forgeries are drawn from.
    """

    def __init__(self, finder: FaceFinder, options: ForgeryOptions) -> None:
        self.finder, self.options = finder, options

    def __call__(self, image: np.ndarray, name: str, faces: list[Face]) -> Forgery:
        """Forge an image.

        Args:
            image: uint8 H×W×3 RGB.
            name: of its file.
            faces: of the image; see `faces_to_forge`.

        Raises:
            ImageReadError: no face is fit to be forged. The loader counts the image and draws another: trained on as
                real, it would teach that what has no face is real.
        """
        with _counted(name):
            return self_blend(image, faces, random_generator(), self.options)

    def faces_to_forge(self, image: np.ndarray, name: str) -> list[Face]:
        """Find the faces of an image that are fit to be forged. Raises ImageReadError as a call."""
        faces = self.finder(image)
        with _counted(name):
            return [faces[i] for i in suitable_faces(faces, image.shape[:2], self.options)]


@contextlib.contextmanager
def _counted(name: str) -> Iterator[None]:
    try:
        yield
    except NoSuitableFaceError as error:
        raise ImageReadError(name, f"cannot be self-blended: {error}") from error


class ReplaceWithSelfBlended:
    """The mapper's `forge` function that turns a share of the real training images into forged ones.

    Outside its mask a forged image is the real one, bit for bit: the target alone changes its appearance, whatever the
    blender's options say. Otherwise the change would tell forged images from real ones, which have none. For the same
    reason an image without a face is not trained on as real either.

    Args:
        blender: forges.
        probability: how likely a real image is forged, in [0, 1].
    """

    def __init__(self, blender: SelfBlender, probability: float) -> None:
        options = replace(blender.options, appearance_weights=(0.0, 1.0, 0.0))
        self.blender, self.probability = SelfBlender(blender.finder, options), probability

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, row: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Forge an image or leave it; see `ddl_d2.data.mapper.Forge`.

        Raises:
            ImageReadError: a real image has no face that is fit to be forged.
        """
        if row["is_fake"]:
            return image, mask, 1
        faces = self.blender.faces_to_forge(image, row["file_name"])
        if np.random.uniform() >= self.probability:
            return image, mask, 0
        forgery = self.blender(image, row["file_name"], faces)
        return forgery.image, forgery.mask, 1


class SelfBlendingMapper:
    """A real image -> [real, self-blended], both after the same augmentation, so that nothing else tells them apart.

    The rows are a `ForgeryDatasetMapper`'s training rows, with `image_id` ending in "#self-blended" for the forgery,
    and with `soft_mask`, float32 H×W in [0, 1]: how much of a pixel is forged content (zeros for the real image).
    `forgery_mask` and `instances` are where it is above one half.

    Args:
        mapper: reads, augments and packs; one for training, without a `forge` of its own.
        blender: forges.
        crop_margin: the pair is cut to one of the faces, with a margin drawn from here for every side (shares of
            the face's box); None keeps the whole image.
        post: changes of appearance that both images undergo alike; None for none.
    """

    rows_per_sample = 2

    def __init__(
        self,
        mapper: ForgeryDatasetMapper,
        blender: SelfBlender,
        *,
        crop_margin: tuple[float, float] | None = None,
        post: PostOptions | None = None,
    ) -> None:
        self.mapper, self.blender, self.crop_margin, self.post = mapper, blender, crop_margin, post

    def __call__(self, dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Map one dataset dict of a real image. Raises as the mapper, and ImageReadError without a face to forge."""
        row, image = self.mapper.read({**dataset_dict, "is_fake": 0})
        faces = self.blender.faces_to_forge(image, row["file_name"])
        if self.crop_margin:
            face = faces[np.random.randint(len(faces))]
            image, face = crop_around(image, face, margins=np.random.uniform(*self.crop_margin, size=4))
            faces = [face]
        forgery = self.blender(image, row["file_name"], faces)
        steps = draw_post_steps(random_generator(), self.post) if self.post else []
        forged, mask, transforms = self.mapper.augment(apply_steps(forgery.image, steps), forgery.mask)
        soft = _moved(forgery.soft, transforms)
        real = transforms.apply_image(apply_steps(forgery.real, steps))
        return [
            self._row(row, real, np.zeros_like(mask), np.zeros_like(soft), 0),
            self._row(row | {"image_id": f"{row['image_id']}#self-blended"}, forged, mask, soft, 1),
        ]

    def _row(
        self, row: Mapping[str, Any], image: np.ndarray, mask: np.ndarray, soft: np.ndarray, is_fake: int
    ) -> dict[str, Any]:
        packed = dict(row)
        self.mapper.add_targets(packed, image, mask, is_fake=is_fake, known=True)
        packed["soft_mask"] = torch.from_numpy(soft)
        packed["mask_resized"] = False
        return packed


def build_self_blending_mapper(
    cfg: CfgNode, finder: FaceFinder, *, crop: Crop | None = None
) -> ForgeryDatasetMapper | SelfBlendingMapper:
    """Build the training mapper of a config with INPUT.SELF_BLEND.ENABLED.

    Args:
        cfg: a full config.
        finder: finds faces.
        crop: cuts images, where they are not made into pairs.

    Raises:
        ConfigError: a value of INPUT.SELF_BLEND is out of its limits, or pairs with forgeries of INPUT.AUGMENT.
    """
    blend = cfg.INPUT.SELF_BLEND
    if blend.PAIRS and build_forge(cfg) is not None:
        raise ConfigError(
            "INPUT.AUGMENT.COPY_MOVE_PROB and INPAINT_PROB would forge the real image of a pair: "
            "set them to 0, or INPUT.SELF_BLEND.PAIRS False"
        )
    blender = SelfBlender(finder, forgery_options(blend))
    if blend.PAIRS:
        margin = tuple(blend.FACE_CROP_MARGIN) if blend.FACE_CROP else None
        post = post_options(blend.POST) if blend.POST.ENABLED else None
        return SelfBlendingMapper(ForgeryDatasetMapper(cfg, True), blender, crop_margin=margin, post=post)
    forge = build_forge(cfg, first=ReplaceWithSelfBlended(blender, blend.PROB))
    return ForgeryDatasetMapper(cfg, True, crop=crop, forge=forge)


def forgery_options(blend: CfgNode) -> ForgeryOptions:
    """Read INPUT.SELF_BLEND as what forgeries are drawn from.

    Raises:
        ConfigError: a value out of its limits; names the key.
    """
    switched_off: dict[str, Any] = {}
    if not blend.MULTI_PART:
        switched_off["whole_face_prob"] = 1.0
    if not blend.DISPLACEMENT:
        switched_off["drag_count"] = (0, 0)
    try:
        return options_of(ForgeryOptions, blend, **switched_off)
    except ValueError as error:
        raise ConfigError(f"INPUT.SELF_BLEND: {error}") from error


def post_options(post: CfgNode) -> PostOptions:
    """Read INPUT.SELF_BLEND.POST as what both images of a pair undergo. Raises ConfigError as `forgery_options`."""
    try:
        return options_of(PostOptions, post)
    except ValueError as error:
        raise ConfigError(f"INPUT.SELF_BLEND.POST: {error}") from error


def _moved(soft: np.ndarray, transforms: T.TransformList) -> np.ndarray:
    """A soft mask after the transforms that move pixels; stored in 255 steps on the way."""
    values = np.repeat(np.rint(soft * 255).astype(np.uint8)[..., None], 3, axis=2)
    for transform in transforms.transforms:
        if not isinstance(transform, (PhotometricTransform, T.NoOpTransform)):
            values = transform.apply_image(values)
    return values[..., 0].astype(np.float32) / 255
