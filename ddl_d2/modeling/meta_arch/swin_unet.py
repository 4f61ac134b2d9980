"""System S3's network: an encoder that detects, and Swin-Unet's decoder that localizes.

Source: "Multi-part local-displacement self-blending" (Scientific Reports 2025; "the paper"), which trains it without
forged samples: forgeries with soft masks come from `forging`. The network takes masks from anywhere.

Shapes: `B` images, `C` channels of the deepest map F (stride 32), `N` its h · w places, `H, W` pixels of the padded
batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.heads import ImageSizes, valid_average
from ddl_d2.modeling.losses import (
    feature_similarity,
    local_diversity,
    map_bce,
    mean_of_known,
    pool_valid,
    printed_similarity,
)
from ddl_d2.modeling.preprocessing import Truth, fake_labels, is_known, padded_truth
from ddl_d2.modeling.swin_unet.decoder import SwinUNetDecoder
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import count_per_part

DIVERSITIES = ("features", "printed", "none")
_REAL, _FAKE = 0, 1


@META_ARCH_REGISTRY.register()
class SwinUNet(ForgerySystem):
    """Detector from the average of F, localizer by the decoder; a coarse map P_m from each place of F.

    Losses (section "Loss" of the paper, α·L_C + β·L_M + γ·L_m): `loss_cls` (cross-entropy real / fake), `loss_map`
    (binary cross-entropy of pixels), and, unless `diversity` is "none", `loss_diversity` and (with "features")
    `loss_coarse_map`. Padding and images whose forged pixels are not known (`localization_valid` False) have no part in
    the last three.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        decoder: SwinUNetDecoder,
        class_features: list[str],
        class_weight: float,
        map_weight: float,
        diversity_weight: float,
        diversity: str,
        tau: float,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: the encoder; its coarsest map is F.
            decoder: gives the map.
            class_features: names of the encoder's maps that are averaged for the class.
            class_weight: α.
            map_weight: β.
            diversity_weight: γ.
            diversity: what L_m compares between places: "features" of F (cosines times `tau`, as the text says; P_m is
                then taught by the ground truth directly), the "printed" products of P_m, or "none".
            tau: see `diversity`.
            options: what every system takes.

        Raises:
            ConfigError: an unknown `diversity`.
        """
        super().__init__(backbone=backbone, options=options)
        if diversity not in DIVERSITIES:
            raise ConfigError(f"MODEL.SWIN_UNET.DIVERSITY is '{diversity}': it must be one of {', '.join(DIVERSITIES)}")
        shapes: dict[str, ShapeSpec] = backbone.output_shape()
        self.decoder = decoder
        self.class_features = {name: shapes[name].stride for name in class_features}
        self.classifier = _small_linear(sum(shapes[name].channels for name in class_features), 2)
        self.deepest, self.stride = decoder.deepest, shapes[decoder.deepest].stride
        # Without its losses it would be a layer that nothing reaches, which distributed training does not forgive.
        self.coarse_map = _small_linear(shapes[self.deepest].channels, 1) if diversity != "none" else None
        self.class_weight, self.map_weight, self.diversity_weight = class_weight, map_weight, diversity_weight
        self.diversity = diversity
        self.tau = tau
        self.size_divisibility = max(backbone.size_divisibility, self.stride)
        self.use_fast_layers()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.SWIN_UNET, the backbone's keys and MODEL.DETECTION."""
        if not (cfg.MODEL.DETECTION.ENABLED and cfg.MODEL.LOCALIZATION.ENABLED):
            raise ConfigError(
                "SwinUNet always detects and localizes: leave MODEL.DETECTION.ENABLED and MODEL.LOCALIZATION.ENABLED "
                "True, and set MODEL.SWIN_UNET.CLASS_WEIGHT or MAP_WEIGHT to 0 to train one half only"
            )
        unet = cfg.MODEL.SWIN_UNET
        backbone = build_backbone(cfg)
        decoder = SwinUNetDecoder(
            input_shape=backbone.output_shape(),
            embed_dim=unet.EMBED_DIM,
            depths=unet.DECODER_DEPTHS,
            num_heads=unet.DECODER_HEADS,
            window_size=unet.WINDOW_SIZE,
        )
        return {
            "backbone": backbone,
            "decoder": decoder,
            "class_features": cfg.MODEL.DETECTION.IN_FEATURES,
            "class_weight": unet.CLASS_WEIGHT,
            "map_weight": unet.MAP_WEIGHT,
            "diversity_weight": unet.DIVERSITY_WEIGHT,
            "diversity": unet.DIVERSITY,
            "tau": unet.TAU,
            "options": SystemOptions.from_config(cfg),
        }

    def image_logits(self, features: dict[str, Tensor], image_sizes: ImageSizes) -> Tensor:
        """Return the logits of "fake", B, differentiable.

        Args:
            features: the backbone's {name: B×C×h×w}.
            image_sizes: the unpadded (height, width) of each image.
        """
        logits = self._class_logits(features, image_sizes)
        return logits[:, _FAKE] - logits[:, _REAL]

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses from `image`, `is_fake`, and `soft_mask` or else `forgery_mask`."""
        images, features = self.encode_rows(batched_inputs)
        map_logits = self.decoder(features)
        truth = padded_truth(batched_inputs, images)
        class_loss = F.cross_entropy(
            self._class_logits(features, images.image_sizes), fake_labels(batched_inputs, self.device)
        )
        losses = {"loss_cls": self.class_weight * class_loss}
        with torch.autocast(self.device.type, enabled=False):
            by_image = map_bce(map_logits.float(), truth.maps, truth.valid)
            count = count_per_part(batched_inputs, is_known)
            losses["loss_map"] = self.map_weight * mean_of_known(by_image, truth.known, count)
            if self.coarse_map is not None:
                for name, by_image in self._diversity(self.coarse_map, features[self.deepest].float(), truth).items():
                    losses[name] = self.diversity_weight * mean_of_known(by_image, truth.known, count)
        return losses

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Predict the score by the class and the map by the decoder.

        Encoders see padding (a plain transformer with every token), so the images have to need the same.
        """
        features = self.encode(images)
        scores = self._class_logits(features, sizes).softmax(dim=1)[:, _FAKE]
        return Probabilities(scores, self.decoder(features).float().sigmoid())

    def _class_logits(self, features: dict[str, Tensor], image_sizes: ImageSizes) -> Tensor:
        """Return the logits (real, fake), B×2, fp32; padding is left out of the averages."""
        with torch.autocast(self.device.type, enabled=False):
            pooled = [
                valid_average(features[name].float(), image_sizes, stride)
                for name, stride in self.class_features.items()
            ]
            return self.classifier(torch.cat(pooled, dim=1))

    def _diversity(self, coarse_map: nn.Module, deepest: Tensor, truth: Truth) -> dict[str, Tensor]:
        """Return L_m of each image (B), under the names of its parts, from F, B×C×h×w."""
        targets, valid = (x.flatten(1) for x in pool_valid(truth.maps, truth.valid, self.stride))
        places = deepest.flatten(2).transpose(1, 2)
        coarse = coarse_map(places).squeeze(2)
        if self.diversity == "printed":
            return {"loss_diversity": local_diversity(printed_similarity(coarse), targets, valid)}
        return {
            "loss_diversity": local_diversity(feature_similarity(places, self.tau), targets, valid),
            "loss_coarse_map": map_bce(coarse, targets, valid),
        }


def _small_linear(in_features: int, out_features: int) -> nn.Linear:
    linear = nn.Linear(in_features, out_features)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
