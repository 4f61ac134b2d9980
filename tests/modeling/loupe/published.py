"""The published Loupe: its weights (made up, each from its name), and the network here that they go into."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from ddl_d2.checkpoint.loading import load_checkpoint
from ddl_d2.modeling.backbone.perception_encoder import PerceptionEncoder
from ddl_d2.modeling.losses import poly_focal, tversky
from ddl_d2.modeling.loupe.classifier import PatchAwareClassifier
from ddl_d2.modeling.loupe.pyramid import SimplePyramid
from ddl_d2.modeling.loupe.segmentor import Condition, LoupeSegmentor
from ddl_d2.modeling.mask2former.criterion import SetCriterion
from ddl_d2.modeling.mask2former.head import QueryDecoderHead
from ddl_d2.modeling.mask2former.matcher import HungarianMatcher
from ddl_d2.modeling.mask2former.pixel_decoder import MSDeformAttnPixelDecoder
from ddl_d2.modeling.mask2former.query_decoder import QueryDecoder
from ddl_d2.modeling.meta_arch.loupe import Loupe
from ddl_d2.modeling.system import SystemOptions

SIZES = {"small": 112, "l14": 336}
IMAGES = {"small": (0, 15, 2), "l14": (0, 1)}
_ENCODER = {"small": {"embed_dim": 64, "depth": 3, "num_heads": 4}, "l14": {}}
_DECODER = {
    "small": {"dim": 64, "feedforward": 128, "layers": 2, "queries": 6, "query_feedforward": 128, "query_layers": 3},
    "l14": {"dim": 256, "feedforward": 1024, "layers": 6, "queries": 20, "query_feedforward": 2048, "query_layers": 9},
}


def filling(shared: Path) -> ModuleType:
    """What draws weights, images, masks and points for an implementation to be compared with."""
    spec = importlib.util.spec_from_file_location("fill_s4", shared / "reference" / "loupe" / "fill_s4.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_weights(shared: Path, name: str) -> dict[str, Tensor]:
    """The state dict of "small" or "l14" in published names, as its files have them."""
    fill = filling(shared)
    weights = fill.fill_by_name(fill.empty_state(shared / "reference" / "loupe" / f"loupe_{name}.keys.txt"))
    return {f"loupe.{key}": value for key, value in weights.items()}


def published_loupe(shared: Path, name: str) -> Loupe:
    """The system with these weights in it."""
    model = build_loupe(name)
    report = load_checkpoint(model, {"model": published_weights(shared, name)}, name, allow_partial=False)
    assert report.unused == []
    return model.eval()


def build_loupe(name: str) -> Loupe:
    """The system, randomly initialized; stage 3's losses (weights 2 and 1)."""
    sizes = _DECODER[name]
    backbone = PerceptionEncoder(name="vit_pe_core_large_patch14_336", input_size=SIZES[name], **_ENCODER[name])
    pyramid = SimplePyramid(channels=backbone.channels)
    pixel_decoder = MSDeformAttnPixelDecoder(
        input_shape=pyramid.output_shape(),
        in_features=["res2", "res3", "res4", "res5"],
        deformable_in_features=["res3", "res4", "res5"],
        conv_dim=sizes["dim"],
        mask_dim=sizes["dim"],
        norm="GN",
        num_layers=sizes["layers"],
        num_heads=8,
        num_points=4,
        dim_feedforward=sizes["feedforward"],
        conditional=True,
    )
    predictor = QueryDecoder(
        in_channels=sizes["dim"],
        hidden_dim=sizes["dim"],
        mask_dim=sizes["dim"],
        num_classes=1,
        num_levels=3,
        num_queries=sizes["queries"],
        num_heads=8,
        dim_feedforward=sizes["query_feedforward"],
        num_layers=sizes["query_layers"],
    )
    head = QueryDecoderHead(num_classes=1, pixel_decoder=pixel_decoder, predictor=predictor)
    return Loupe(
        backbone=backbone,
        classifier=PatchAwareClassifier(channels=backbone.channels, num_patches=backbone.grid[0] ** 2),
        segmentor=LoupeSegmentor(pyramid=pyramid, head=head, condition=Condition(dim=sizes["dim"])),
        criterion=loupe_criterion(),
        input_size=SIZES[name],
        map_size=384,
        class_weight=2.0,
        map_weight=1.0,
        image_alpha=0.2,
        patch_alpha=0.85,
        focal_gamma=2.0,
        focal_epsilon=1.0,
        condition_train="truth",
        condition_test="score",
        options=SystemOptions(pixel_mean=[127.5] * 3, pixel_std=[127.5] * 3),
    )


def loupe_criterion() -> SetCriterion:
    """The published losses, with the published weights."""
    return SetCriterion(
        num_classes=1,
        matcher=HungarianMatcher(class_weight=1.0, mask_weight=5.0, dice_weight=5.0, num_points=12544),
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
        no_object_weight=0.1,
        num_points=12544,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        deep_supervision=True,
        mask_loss=partial(poly_focal, alpha=0.8),
        region_loss=partial(tversky, alpha=0.3),
    )


def published_rows(shared: Path, name: str) -> list[dict]:
    """The batch for which reference outputs are known: images of the network's size, of kinds fake, real (and fake)."""
    fill, side = filling(shared), SIZES[name]
    return [
        make_row(fill.picture(index, side), fill.forged_mask(kind, side)) for kind, index in enumerate(IMAGES[name])
    ]


def make_row(image: np.ndarray, mask: np.ndarray | None) -> dict:
    """A mapper's row of an image, uint8 H × W × 3, and its forged pixels; None: it is real."""
    size = image.shape[:2]
    forged = torch.zeros((0, *size), dtype=torch.bool) if mask is None else torch.from_numpy(mask)[None]
    classes = torch.zeros(len(forged), dtype=torch.int64)
    return {
        "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
        "is_fake": int(mask is not None),
        "instances": Instances(size, gt_classes=classes, gt_masks=BitMasks(forged)),
        "forgery_mask": forged.any(0),
        "height": size[0],
        "width": size[1],
        "image_id": "?",
    }
