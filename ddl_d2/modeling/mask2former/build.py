"""Matcher and criterion of a config."""

from __future__ import annotations

from functools import partial

from detectron2.config import CfgNode

from ddl_d2.modeling.losses import dice, poly_focal, sigmoid_bce, tversky
from ddl_d2.modeling.mask2former.criterion import PointLoss, SetCriterion
from ddl_d2.modeling.mask2former.matcher import HungarianMatcher


def build_criterion(cfg: CfgNode) -> SetCriterion:
    """Build the criterion of MODEL.MASK_FORMER."""
    former = cfg.MODEL.MASK_FORMER
    matched_class = former.MATCH_CLASS_WEIGHT
    matcher = HungarianMatcher(
        class_weight=former.CLASS_WEIGHT if matched_class is None else matched_class,
        mask_weight=former.MASK_WEIGHT,
        dice_weight=former.DICE_WEIGHT,
        num_points=former.TRAIN_NUM_POINTS,
    )
    mask_losses: dict[str, PointLoss] = {
        "bce": sigmoid_bce,
        "poly_focal": partial(
            poly_focal, alpha=former.FOCAL_ALPHA, gamma=former.FOCAL_GAMMA, epsilon=former.FOCAL_EPSILON
        ),
    }
    region_losses: dict[str, PointLoss] = {"dice": dice, "tversky": partial(tversky, alpha=former.TVERSKY_ALPHA)}
    return SetCriterion(
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        matcher=matcher,
        class_weight=former.CLASS_WEIGHT,
        mask_weight=former.MASK_WEIGHT,
        dice_weight=former.DICE_WEIGHT,
        no_object_weight=former.NO_OBJECT_WEIGHT,
        num_points=former.TRAIN_NUM_POINTS,
        oversample_ratio=former.OVERSAMPLE_RATIO,
        importance_sample_ratio=former.IMPORTANCE_SAMPLE_RATIO,
        deep_supervision=former.DEEP_SUPERVISION,
        mask_loss=mask_losses[former.MASK_LOSS],
        region_loss=region_losses[former.REGION_LOSS],
        box_weight=former.BOX_WEIGHT,
    )
