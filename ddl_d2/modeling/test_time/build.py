"""Wrapping a system for predicting as the config asks for it: in evaluation, and in the predictor."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn

from ddl_d2.modeling.test_time.faces import OnFaceCrops
from ddl_d2.modeling.test_time.tiles import OnTiles
from ddl_d2.modeling.test_time.views import OnViews


def wrapped_for_testing(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Wrap a system in tiles (TEST.TILE), views (TEST.AUG, TEST.UNCERTAINTY) and face crops (INPUT.FACE_CROP).

    Of each face crop there are then views, and large ones are cut into tiles.
    """
    return on_face_crops(cfg, on_views(cfg, on_tiles(cfg, model)))


def on_tiles(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Wrap a system in `OnTiles`; returned as it is where TEST.TILE.SIZE is 0, or if it is wrapped already."""
    tile = cfg.TEST.TILE
    if not tile.SIZE or any(isinstance(part, OnTiles) for part in model.modules()):
        return model
    return OnTiles(
        model,
        size=tile.SIZE,
        overlap=tile.OVERLAP,
        score=tile.SCORE,
        image_score=cfg.TEST.IMAGE_SCORE,
        batch_size=tile.BATCH_SIZE,
        map_threshold=cfg.TEST.MAP_THRESHOLD,
        instance_mode=cfg.INPUT.INSTANCES,
        max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def on_views(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Wrap a system in `OnViews`; returned as it is if the config wants no views, or if it is wrapped already."""
    wanted = cfg.TEST.AUG.ENABLED or cfg.TEST.UNCERTAINTY.ENABLED
    if not wanted or any(isinstance(part, OnViews) for part in model.modules()):
        return model
    return OnViews(
        model,
        flip=cfg.TEST.AUG.ENABLED and cfg.TEST.AUG.FLIP,
        spread=cfg.TEST.UNCERTAINTY.ENABLED,
        map_threshold=cfg.TEST.MAP_THRESHOLD,
        instance_mode=cfg.INPUT.INSTANCES,
        max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def on_face_crops(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Wrap a system in `OnFaceCrops`; returned as it is without INPUT.FACE_CROP, or if it is wrapped already."""
    if not cfg.INPUT.FACE_CROP.ENABLED or any(isinstance(part, OnFaceCrops) for part in model.modules()):
        return model
    return OnFaceCrops(
        model,
        face_score=cfg.TEST.FACE_SCORE,
        max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
        batch_size=cfg.TEST.BATCH_SIZE,
    )
