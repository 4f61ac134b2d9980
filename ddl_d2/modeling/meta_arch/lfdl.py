"""System S2's first half: a two-stream Xception that detects, and localizes on a grid of 19 × 19 cells.

Source: "Locate and Verify" (Shuai et al., ACM MM 2023), as an entry to the IJCAI 2025 challenge on detection and
localization extended it by a head for pixels. Where paper and released code differ, `MODEL.LFDL` has both; the paper's
is the default.

Shapes: `B` images, `S` the side in pixels to which every image is stretched, `C` channels, `h, w` cells of the grid
(places of stage 5, stride 16), `H, W` pixels of an image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ddl_d2.errors import ConfigError
from ddl_d2.layers.grid import grid_max_pool
from ddl_d2.modeling.heads import ImageSizes
from ddl_d2.modeling.lfdl.heads import FusionClassifier, PatchFusion, PatchHead, PixelHead
from ddl_d2.modeling.lfdl.pseudo_labels import label_locations, nose_cells
from ddl_d2.modeling.lfdl.two_stream import TwoStreamEncoder
from ddl_d2.modeling.losses import mean_of_known
from ddl_d2.modeling.preprocessing import fake_labels, is_known, known_maps, stretched_maps
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import count_per_part

MAPS = ("pixel", "patch")
_FAKE = 1  # of the classes real, fake
_RGB, _NOISE = ([f"{stream}{stage}" for stage in range(6)] for stream in ("rgb", "noise"))
# Stage 4 reaches the classifier through stage 5 only.
_EARLIER_NOISE, _LAST_NOISE = ["noise0", "noise1", "noise2", "noise3", "noise5"], "noise6"


@META_ARCH_REGISTRY.register()
class LFDL(ForgerySystem):
    """Detector on the noise stream; two localizers on the rgb stream.

    Losses: `loss_cls` (cross-entropy real / fake), `loss_patch` (does a cell of the grid hold a forged pixel?) and
    `loss_pixel` (is a pixel forged?), the last two binary cross-entropies over the images whose forged pixels are known
    (`localization_valid`), real ones included.

    It has no `image_logits`: a heat map (`inference/gradcam.py`) is laid over images that were padded, not stretched,
    and is refused.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: TwoStreamEncoder,
        patch_fusion: PatchFusion,
        patch_head: PatchHead,
        pixel_head: PixelHead,
        classifier: FusionClassifier,
        class_fusion: PatchFusion | None = None,
        input_size: int,
        class_weight: float,
        patch_weight: float,
        pixel_weight: float,
        map_head: str,
        pseudo_labels: bool,
        pseudo_warmup: int,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: both streams.
            patch_fusion: see `modeling/lfdl/heads.py`.
            patch_head: see there.
            pixel_head: see there.
            classifier: see there.
            class_fusion: of the noise stream's stages, for the classifier; None: it reads them side by side.
            input_size: S. Neither it nor the shape of an image changes a parameter.
            class_weight: of `loss_cls`; all three weights are 1 in the released code.
            patch_weight: of `loss_patch`.
            pixel_weight: of `loss_pixel`.
            map_head: which head gives `forgery_map`, "pixel" or "patch".
            pseudo_labels: label the locations of fake images whose mask is not known (`label_locations`), instead of
                teaching with their class only.
            pseudo_warmup: training steps (of Detectron2's `EventStorage`, so that a resumed run goes on counting)
                before that begins; real images, and those of known mask, teach locations from the first.
            options: what every system takes.

        Raises:
            ConfigError: an unknown `map_head`.
        """
        super().__init__(backbone=backbone, options=options)
        if map_head not in MAPS:
            raise ConfigError(f"MODEL.LFDL.MAP is '{map_head}': it must be {' or '.join(MAPS)}")
        self.patch_fusion = patch_fusion
        self.patch_head = patch_head
        self.pixel_head = pixel_head
        self.classifier = classifier
        self.class_fusion = class_fusion
        self.size = (input_size, input_size)
        self.class_weight, self.patch_weight, self.pixel_weight = class_weight, patch_weight, pixel_weight
        self.map_head = map_head
        self.pseudo_labels, self.pseudo_warmup = pseudo_labels, pseudo_warmup
        self.use_fast_layers(patch_fusion, patch_head, pixel_head, class_fusion)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.LFDL and MODEL.TIMM."""
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
        class_fusion = None
        if lfdl.CLASS_MPFF:
            noise = [shapes[name] for name in _NOISE]
            class_fusion = PatchFusion(input_shapes=noise, dim=lfdl.FUSION_DIM, reading=lfdl.MPFF)
        earlier = [shapes[name].channels for name in _EARLIER_NOISE]
        classifier = FusionClassifier(
            in_channels=earlier if class_fusion is None else [class_fusion.out_channels],
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
            "class_fusion": class_fusion,
            "input_size": lfdl.INPUT_SIZE,
            "class_weight": lfdl.CLASS_WEIGHT,
            "patch_weight": lfdl.PATCH_WEIGHT,
            "pixel_weight": lfdl.PIXEL_WEIGHT,
            "map_head": lfdl.MAP,
            "pseudo_labels": lfdl.PSEUDO_LABELS.ENABLED,
            "pseudo_warmup": lfdl.PSEUDO_LABELS.WARMUP_ITERS,
            "options": SystemOptions.from_config(cfg),
        }

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses from `image`, `is_fake`, `soft_mask` or else `forgery_mask`, and `nose_box` if given."""
        features = self.encode(self.batch(batched_inputs)[0])
        class_logits, pixel_logits = self._class_logits(features), self._pixel_logits(features)
        patch_logits, places = self._patch_logits(features)
        labels = fake_labels(batched_inputs, self.device)
        with torch.autocast(self.device.type, enabled=False):
            truth = self._truth(batched_inputs, labels == _FAKE, places)
            # Pseudo labels make more maps known; a batch that has them goes through in one part.
            count = None if self.pseudo_labels else count_per_part(batched_inputs, is_known)
            return {
                "loss_cls": self.class_weight * F.cross_entropy(class_logits, labels),
                "loss_patch": self.patch_weight * _map_loss(patch_logits, truth.cells, truth.known, count),
                "loss_pixel": self.pixel_weight
                * _map_loss(self._enlarged(pixel_logits), truth.pixels, truth.known, count),
            }

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Predict the score by the classifier and the map by the head that the config chooses."""
        features = self.encode(images)
        logits = self._pixel_logits(features) if self.map_head == "pixel" else self._patch_logits(features)[0]
        return Probabilities(self._class_logits(features).softmax(dim=1)[:, _FAKE], self._enlarged(logits).sigmoid())

    def _class_logits(self, features: dict[str, Tensor]) -> Tensor:
        """Return the logits (real, fake), B×2, fp32."""
        earlier = [features[name] for name in _EARLIER_NOISE]
        if self.class_fusion is not None:
            noise = [features[name] for name in _NOISE]
            earlier = [self.class_fusion(self.class_fusion.project(noise), noise[-1])]
        return self.classifier(earlier, features[_LAST_NOISE]).float()

    def _patch_logits(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of forged cells, B×h×w, and the projection of stage 5, B×C×h×w."""
        rgb = [features[name] for name in _RGB]
        projected = self.patch_fusion.project(rgb)
        return self.patch_head(self.patch_fusion(projected, rgb[-1])), projected[-1]

    def _pixel_logits(self, features: dict[str, Tensor]) -> Tensor:
        """Return the logits of forged pixels before they are enlarged, B×h×w."""
        return self.pixel_head(features[_RGB[-1]])

    def _enlarged(self, logits: Tensor) -> Tensor:
        """Resize B×h×w to B×S×S."""
        return F.interpolate(logits[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]

    def _truth(self, batched_inputs: list[dict[str, Any]], is_fake: Tensor, places: Tensor) -> Truth:
        """Return what the maps shall be; pseudo labels compare `places`, B×C×h×w."""
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


class Truth(NamedTuple):
    """What a batch teaches about locations.

    Attributes:
        cells: bool B×h×w, whether a cell holds a forged pixel.
        pixels: bool B×S×S, whether a pixel is forged.
        known: bool B, whether the maps are supervised.
    """

    cells: Tensor
    pixels: Tensor
    known: Tensor


def _map_loss(logits: Tensor, targets: Tensor, known: Tensor, count: float | None) -> Tensor:
    """Return the binary cross-entropy of logits B×·×· and bool targets, averaged over the images of known map."""
    by_place = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return mean_of_known(by_place.mean(dim=(1, 2)), known, count)
