"""What finds faces and cuts images to them, from INPUT.FACES and INPUT.FACE_CROP."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from ddl_d2.errors import ConfigError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.crop import FaceCropper
from ddl_d2.faces.face import FaceFinder
from ddl_d2.faces.finders import make_remembering_finder


def build_face_crop(cfg: CfgNode, is_train: bool) -> FaceCropper | None:
    """Build what cuts an image to its faces as INPUT.FACE_CROP asks: in training to one of them, in testing to all.

    Returns:
        None where images are shown whole.

    Raises:
        ConfigError: a value out of its limits, keys that do not go together, or an unknown finder.
        FaceFinderUnavailableError: a library or model is missing.
    """
    wanted, pairs = cfg.INPUT.FACE_CROP, makes_pairs(cfg)
    if wanted.TRAIN_FACE not in ("largest", "random", "each"):
        raise ConfigError(f'INPUT.FACE_CROP.TRAIN_FACE {wanted.TRAIN_FACE!r} is none of "largest", "random" and "each"')
    if is_train and wanted.NOSE_BOX and (pairs or not wanted.ENABLED or wanted.TRAIN_FACE == "each"):
        raise ConfigError(
            "INPUT.FACE_CROP.NOSE_BOX needs INPUT.FACE_CROP.ENABLED, no pairs of SELF_BLEND or FACE_SWAP, and faces "
            'that are found on the way (TRAIN_FACE "largest" or "random")'
        )
    if (
        wanted.ENABLED
        and wanted.RULE == "landmarks"
        and (cfg.INPUT.FACES.FINDER, cfg.INPUT.FACES.LANDMARKS) == ("dlib", False)
    ):
        raise ConfigError('INPUT.FACE_CROP.RULE "landmarks" needs INPUT.FACES.LANDMARKS True')
    if not wanted.ENABLED or (is_train and (pairs or wanted.TRAIN_FACE == "each")):
        return None
    return make_face_crop(cfg, build_face_finder(cfg), choice=wanted.TRAIN_FACE if is_train else "all")


def make_face_crop(cfg: CfgNode, finder: FaceFinder, *, choice: str) -> FaceCropper:
    """Make what cuts an image to the faces that `finder` finds. Raises ConfigError for a value out of its limits."""
    try:
        return FaceCropper(finder, choice=choice, **{"margin": cfg.INPUT.FACE_CROP.MARGIN, **crop_settings(cfg)})
    except ValueError as error:
        raise ConfigError(f"INPUT.FACE_CROP: {error}") from error


def build_face_finder(cfg: CfgNode) -> CachedFaceFinder:
    """Build the finder of INPUT.FACES, which remembers what it found.

    Raises:
        ConfigError: an unknown finder.
        FaceFinderUnavailableError: a library or model is missing.
    """
    try:
        return make_remembering_finder(**finder_settings(cfg))
    except ValueError as error:
        raise ConfigError(f"INPUT.FACES.FINDER: {error}") from error


def finder_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return INPUT.FACES as the arguments of `make_remembering_finder`, plain values."""
    faces = cfg.INPUT.FACES
    options = {"max_side": faces.MAX_SIDE, "landmarks": faces.LANDMARKS}
    if faces.FINDER == "yunet":
        options |= {"min_score": faces.YUNET_MIN_SCORE, "nms": faces.YUNET_NMS}
    else:
        options |= {"upsample": faces.DLIB_UPSAMPLE, "min_score": faces.DLIB_MIN_SCORE}
    return options | {
        "name": faces.FINDER,
        "yunet_model": faces.YUNET_MODEL or None,
        "landmark_model": faces.LANDMARK_MODEL or None,
        "second_look": faces.SECOND_LOOK,
        "cache": faces.CACHE or None,
    }


def crop_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the keys of INPUT.FACE_CROP that decide a face's window, as plain values."""
    crop = cfg.INPUT.FACE_CROP
    own = {"margin": crop.MARGIN} if crop.RULE == "box" else {}
    return {"rule": crop.RULE, "whole_above": crop.WHOLE_ABOVE, "smallest": crop.SMALLEST, **own}


def makes_pairs(cfg: CfgNode) -> bool:
    """Return whether training makes a pair, real and forged, of each real image."""
    return cfg.INPUT.FACE_SWAP.ENABLED or (cfg.INPUT.SELF_BLEND.ENABLED and cfg.INPUT.SELF_BLEND.PAIRS)
