"""System S2's first half: a two-stream Xception that detects, and localizes on a grid of 19 × 19 cells.

"Locate and Verify" (Shuai et al., ACM MM 2023), as an entry to the IJCAI 2025 challenge on detection and localization
extended it by a head for pixels. Where paper and released code differ, `MODEL.LFDL` has both; the paper's is the
default.

Shapes: `B` images, `S` the side in pixels to which every image is stretched, `C` channels, `h, w` cells of the grid
(places of stage 5, stride 16), `H, W` pixels of an image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.grid import grid_max_pool
from ddl_d2.layers.linear import use_fast_linear
from ddl_d2.modeling.backbone.full_precision import keep_in_fp32
from ddl_d2.modeling.lfdl.heads import FusionClassifier, PatchFusion, PatchHead, PixelHead
from ddl_d2.modeling.lfdl.pseudo_labels import label_locations, nose_cells
from ddl_d2.modeling.lfdl.two_stream import TwoStreamEncoder
from ddl_d2.modeling.losses import mean_of_known
from ddl_d2.modeling.postprocessing import map_output
from ddl_d2.modeling.preprocessing import known_maps, stretched_batch, stretched_maps

MAPS = ("pixel", "patch")
_REAL, _FAKE = 0, 1
_RGB = [f"rgb{stage}" for stage in range(6)]
# Stage 4 reaches the classifier through stage 5 only.
_EARLIER_NOISE, _LAST_NOISE = ["noise0", "noise1", "noise2", "noise3", "noise5"], "noise6"


@META_ARCH_REGISTRY.register()
class LFDL(nn.Module):
    """Class from the noise stream; two maps from the rgb stream.

    In training `forward` returns weighted losses: `loss_cls` (cross-entropy real / fake), `loss_patch` (does a cell of
    the grid hold a forged pixel?) and `loss_pixel` (is a pixel forged?), the last two binary cross-entropies over the
    images whose forged pixels are known (`localization_valid`), real ones included. In eval mode one dict per
    image, at its original size: `fake_score` float, `forgery_map` float H×W in [0, 1] and `instances`.

    It has no `image_logits`: a heat map (`inference/gradcam.py`) is laid over images that were padded, not stretched,
    and is refused.

    Args:
        backbone: both streams.
        patch_fusion, patch_head, pixel_head, classifier: see `modeling/lfdl/heads.py`.
        input_size: S. Neither it nor the shape of an image changes a parameter.
        class_weight, patch_weight, pixel_weight: of the losses, all 1 in the released code.
        map_head: which head gives `forgery_map`, "pixel" or "patch".
        pseudo_labels: label the locations of fake images whose mask is not known (`pseudo_labels`), instead of
            teaching with their class only.
        pseudo_warmup: training steps (of Detectron2's `EventStorage`, so that a resumed run goes on counting) before
            that begins; real images, and those of known mask, teach locations from the first.
        map_threshold, instance_mode, max_instances: how the map becomes `instances` (`map_instances`).

    Raises:
        ConfigError: an unknown `map_head`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: TwoStreamEncoder,
        patch_fusion: PatchFusion,
        patch_head: PatchHead,
        pixel_head: PixelHead,
        classifier: FusionClassifier,
        input_size: int,
        class_weight: float,
        patch_weight: float,
        pixel_weight: float,
        map_head: str,
        pseudo_labels: bool,
        pseudo_warmup: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        map_threshold: float,
        instance_mode: str,
        max_instances: int,
        fp32_stride: int = 32,
    ):
        super().__init__()
        if map_head not in MAPS:
            raise ConfigError(f"MODEL.LFDL.MAP is '{map_head}': it must be {' or '.join(MAPS)}")
        # Convolutions are faster on this layout, on CPUs and GPUs alike; values are the same.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.patch_fusion = patch_fusion.to(memory_format=torch.channels_last)
        self.patch_head = patch_head.to(memory_format=torch.channels_last)
        self.pixel_head = pixel_head.to(memory_format=torch.channels_last)
        self.classifier = classifier
        self.size = (input_size, input_size)
        self.class_weight, self.patch_weight, self.pixel_weight = class_weight, patch_weight, pixel_weight
        self.map_head = map_head
        self.pseudo_labels, self.pseudo_warmup = pseudo_labels, pseudo_warmup
        self.map_threshold = map_threshold
        self.instance_mode = instance_mode
        self.max_instances = max_instances
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        use_fast_linear(self)
        keep_in_fp32(self.backbone, fp32_stride)

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        if not (cfg.MODEL.DETECTION.ENABLED and cfg.MODEL.LOCALIZATION.ENABLED):
            raise ConfigError(
                "LFDL always detects and localizes: leave MODEL.DETECTION.ENABLED and MODEL.LOCALIZATION.ENABLED True, "
                "and set MODEL.LFDL.CLASS_WEIGHT, PATCH_WEIGHT or PIXEL_WEIGHT to 0 to train one part only"
            )
        lfdl = cfg.MODEL.LFDL
        backbone = TwoStreamEncoder(
            name=cfg.MODEL.TIMM.NAME,
            pretrained=cfg.MODEL.TIMM.PRETRAINED,
            srm_scale=lfdl.SRM_SCALE,
            update=lfdl.CMCE,
            attention=lfdl.LFGA,
        )
        shapes = backbone.output_shape()
        patch_fusion = PatchFusion(input_shapes=[shapes[name] for name in _RGB], dim=lfdl.FUSION_DIM, reading=lfdl.MPFF)
        classifier = FusionClassifier(
            in_channels=[shapes[name].channels for name in _EARLIER_NOISE],
            last_channels=shapes[_LAST_NOISE].channels,
            dims=lfdl.CLASS_DIMS,
            dropout=lfdl.DROPOUT,
        )
        return {
            "backbone": backbone,
            "patch_fusion": patch_fusion,
            "patch_head": PatchHead(in_channels=patch_fusion.out_channels),
            "pixel_head": PixelHead(in_channels=shapes[_RGB[-1]].channels, dims=lfdl.PIXEL_DIMS),
            "classifier": classifier,
            "input_size": lfdl.INPUT_SIZE,
            "class_weight": lfdl.CLASS_WEIGHT,
            "patch_weight": lfdl.PATCH_WEIGHT,
            "pixel_weight": lfdl.PIXEL_WEIGHT,
            "map_head": lfdl.MAP,
            "pseudo_labels": lfdl.PSEUDO_LABELS.ENABLED,
            "pseudo_warmup": lfdl.PSEUDO_LABELS.WARMUP_ITERS,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "map_threshold": cfg.TEST.MAP_THRESHOLD,
            "instance_mode": cfg.INPUT.INSTANCES,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
            "fp32_stride": cfg.TEST.FP32_STRIDE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Mapper rows -> losses, or predictions.

        `image` uint8 3×H×W; in training `is_fake`, `soft_mask` float H×W in [0, 1] or else `forgery_mask` bool, and
        optionally `nose_box` (see `pseudo_labels.nose_cells`).
        """
        images = stretched_batch(batched_inputs, self.size, self.pixel_mean, self.pixel_std)
        features = self.backbone(images)
        if self.training:
            return self._losses(batched_inputs, features)
        return self._predict(batched_inputs, features)

    def _class_logits(self, features: dict[str, Tensor]) -> Tensor:
        """B×2, fp32."""
        return self.classifier([features[name] for name in _EARLIER_NOISE], features[_LAST_NOISE]).float()

    def _patch_logits(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """-> logits of forged cells B×h×w, and the projection of stage 5, B×C×h×w."""
        rgb = [features[name] for name in _RGB]
        projected = self.patch_fusion.project(rgb)
        return self.patch_head(self.patch_fusion(projected, rgb[-1])), projected[-1]

    def _pixel_logits(self, features: dict[str, Tensor]) -> Tensor:
        """Logits of forged pixels, before they are enlarged: B×h×w."""
        return self.pixel_head(features[_RGB[-1]])

    def _enlarged(self, logits: Tensor) -> Tensor:
        """B×h×w -> B×S×S."""
        return F.interpolate(logits[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]

    def _losses(self, batched_inputs: list[dict], features: dict[str, Tensor]) -> dict[str, Tensor]:
        class_logits, pixel_logits = self._class_logits(features), self._pixel_logits(features)
        patch_logits, places = self._patch_logits(features)
        labels = torch.tensor([_FAKE if x["is_fake"] else _REAL for x in batched_inputs], device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            truth = self._truth(batched_inputs, labels == _FAKE, places)
            return {
                "loss_cls": self.class_weight * F.cross_entropy(class_logits, labels),
                "loss_patch": self.patch_weight * _map_loss(patch_logits, truth.cells, truth.known),
                "loss_pixel": self.pixel_weight * _map_loss(self._enlarged(pixel_logits), truth.pixels, truth.known),
            }

    def _truth(self, batched_inputs: list[dict], is_fake: Tensor, places: Tensor) -> Truth:
        """What the maps shall be; `places` B×C×h×w are what pseudo labels compare."""
        maps = stretched_maps(batched_inputs, self.size, self.device)
        grid = (places.shape[-2], places.shape[-1])
        cells = grid_max_pool(maps[:, None], grid)[:, 0] > 0
        truth = Truth(cells, maps >= 0.5, known_maps(batched_inputs, self.device))
        if not self.pseudo_labels or (self.pseudo_warmup > 0 and get_event_storage().iter < self.pseudo_warmup):
            return truth
        nose = nose_cells(batched_inputs, grid, self.device)
        cells, labeled = label_locations(places, is_fake, truth.known, nose)
        pixels = F.interpolate(cells[:, None].float(), self.size)[:, 0].bool()  # each pixel as its cell
        chosen = labeled[:, None, None]
        return Truth(
            torch.where(chosen, cells, truth.cells), torch.where(chosen, pixels, truth.pixels), truth.known | labeled
        )

    @torch.no_grad()
    def _predict(self, batched_inputs: list[dict], features: dict[str, Tensor]) -> list[dict]:
        scores = self._class_logits(features).softmax(dim=1)[:, _FAKE].tolist()
        logits = self._pixel_logits(features) if self.map_head == "pixel" else self._patch_logits(features)[0]
        regions = {"threshold": self.map_threshold, "mode": self.instance_mode, "limit": self.max_instances}
        with torch.autocast(self.device.type, enabled=False):
            probabilities = self._enlarged(logits).sigmoid()
            return [
                map_output(row, forged, self.size, score, **regions)
                for row, score, forged in zip(batched_inputs, scores, probabilities, strict=True)
            ]


class Truth(NamedTuple):
    """`cells` bool B×h×w (holds a forged pixel), `pixels` bool B×S×S, `known` bool B (are the maps supervised)."""

    cells: Tensor
    pixels: Tensor
    known: Tensor


def _map_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of B×·×· logits and bool targets, mean over the images whose map is known."""
    by_place = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return mean_of_known(by_place.mean(dim=(1, 2)), known)
