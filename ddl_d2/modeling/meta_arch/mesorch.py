"""MITL, the second half of system S2: Mesorch, which localizes by traces between the fine and the coarse.

Source: "Mesoscopic Insights: Orchestrating Multi-scale & Hybrid Architecture for Image Manipulation Localization"
(AAAI 2025), and Mesorch-P, its pruned variant, as the released code has them. Names of published weights:
`checkpoint/mesorch_names.py`.

Shapes: `B` images, `C` channels, `S` the side of the network's input, `M` maps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.dct import LOW_PASSES, split, stretch_to_unit
from ddl_d2.modeling.backbone.mix_transformer import FEATURES
from ddl_d2.modeling.heads import ImageSizes
from ddl_d2.modeling.losses import mean_of_known, sigmoid_bce
from ddl_d2.modeling.mesorch.encoders import FrequencyEncoders, build_encoder
from ddl_d2.modeling.mesorch.maps import MapGate, MapHead
from ddl_d2.modeling.preprocessing import is_known, known_maps, stretched_maps
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import count_per_part

_DIVISIBILITY = 32


@META_ARCH_REGISTRY.register()
class Mesorch(ForgerySystem):
    """Localizer that weighs maps of fine and of coarse traces against each other, place by place.

    Every image, stretched to S×S, is split by its frequencies; a local encoder sees it with the high ones, a global
    encoder with the low ones; each of their features becomes a map, and a gate weighs the maps.

    Loss: `loss_map`, binary cross-entropy of the S×S pixels, of which those are forged that are so by half or more;
    images whose forged pixels are not known (`localization_valid` False) have no part in it. There is no image head:
    `fake_score` is the map's.
    """

    backbone: FrequencyEncoders

    @configurable
    def __init__(
        self,
        *,
        backbone: FrequencyEncoders,
        maps: list[str],
        gate: MapGate | None,
        input_size: int,
        frequency_cut: float,
        low_pass: str,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: the two encoders.
            maps: names of the features (of `backbone.output_shape()`) that become maps, in the order of the gate's
                weights. Mesorch has all eight. Mesorch-P, as released, keeps strides 4 and 16 of the local encoder and
                8, 16 and 32 of the global one.
            gate: None adds the maps up instead, as released for Mesorch-P.
            input_size: S, a multiple of 32.
            frequency_cut: `cut` of `layers.dct.split`.
            low_pass: see there.
            options: what every system takes.

        Raises:
            ConfigError: a size, a cut or a low-pass that is not possible.
        """
        super().__init__(backbone=backbone, options=options)
        if input_size <= 0 or input_size % _DIVISIBILITY:
            raise ConfigError(f"MODEL.MESORCH.INPUT_SIZE is {input_size}: it must be a multiple of {_DIVISIBILITY}")
        if low_pass not in LOW_PASSES:
            raise ConfigError(f"MODEL.MESORCH.LOW_PASS is '{low_pass}': it must be one of {', '.join(LOW_PASSES)}")
        if not 0 < frequency_cut < 1:
            raise ConfigError(f"MODEL.MESORCH.FREQUENCY_CUT is {frequency_cut}: it must lie between 0 and 1")
        self.heads = nn.ModuleDict({name: MapHead(_channels_down(backbone, name)) for name in maps})
        self.gate = gate
        self.size = (input_size, input_size)
        self.frequency_cut, self.low_pass = frequency_cut, low_pass
        self.use_fast_layers(self.heads, gate)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.MESORCH."""
        if cfg.MODEL.DETECTION.ENABLED or not cfg.MODEL.LOCALIZATION.ENABLED:
            raise ConfigError(
                "Mesorch localizes and has no image head: set MODEL.DETECTION.ENABLED False and leave "
                "MODEL.LOCALIZATION.ENABLED True (an image's score is its map's, by TEST.IMAGE_SCORE)"
            )
        mesorch = cfg.MODEL.MESORCH
        backbone = FrequencyEncoders(
            local_encoder=_encoder(mesorch.LOCAL, "MODEL.MESORCH.LOCAL"),
            global_encoder=_encoder(mesorch.GLOBAL, "MODEL.MESORCH.GLOBAL"),
        )
        maps = [f"local_{name}" for name in mesorch.LOCAL.MAPS] + [f"global_{name}" for name in mesorch.GLOBAL.MAPS]
        return {
            "backbone": backbone,
            "maps": maps,
            "gate": MapGate(channels=mesorch.GATE_CHANNELS, num_maps=len(maps)) if mesorch.GATE else None,
            "input_size": mesorch.INPUT_SIZE,
            "frequency_cut": mesorch.FREQUENCY_CUT,
            "low_pass": mesorch.LOW_PASS,
            "options": SystemOptions.from_config(cfg),
        }

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the loss from `image`, and `soft_mask` or else `forgery_mask`."""
        logits = self.map_logits(self.batch(batched_inputs)[0])
        forged = (stretched_maps(batched_inputs, self.size, self.device) >= 0.5).float()
        by_image = sigmoid_bce(logits.flatten(1), forged.flatten(1))
        count = count_per_part(batched_inputs, is_known)
        return {"loss_map": mean_of_known(by_image, known_maps(batched_inputs, self.device), count)}

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Predict the map."""
        return Probabilities(None, self.map_logits(images).sigmoid())

    def map_logits(self, images: Tensor) -> Tensor:
        """Return the logits of forged pixels, B×S×S fp32, of normalized images B×3×S×S."""
        parts = split(images, cut=self.frequency_cut, low_pass=self.low_pass)
        high, low = (stretch_to_unit(part, images) for part in parts)
        features = self.encode(images, high, low)
        maps = torch.cat([head(features[name]) for name, head in self.heads.items()], dim=1).float()
        if self.gate is not None:
            maps = maps * self.gate(torch.cat([images, high, low], dim=1))
        merged = maps.sum(dim=1, keepdim=True)
        return F.interpolate(merged, images.shape[-2:], mode="bilinear", align_corners=True)[:, 0]


def _encoder(node: CfgNode, config_keys: str) -> nn.Module:
    wrong = [name for name in node.MAPS if name not in FEATURES]
    if wrong or not node.MAPS or len(set(node.MAPS)) < len(node.MAPS):
        raise ConfigError(f"{config_keys}.MAPS is {list(node.MAPS)}: it must name some of {', '.join(FEATURES)}, once")
    return build_encoder(
        name=node.NAME,
        pretrained=node.PRETRAINED,
        drop_path_rate=node.DROP_PATH_RATE,
        deepest=max(node.MAPS),
        config_keys=config_keys,
    )


def _channels_down(backbone: FrequencyEncoders, name: str) -> list[int]:
    """Return the channels of a feature and of its encoder's finer ones, coarsest first."""
    shapes = backbone.output_shape()
    side, _, deepest = name.partition("_")
    return [shapes[f"{side}_{feature}"].channels for feature in reversed(FEATURES[: FEATURES.index(deepest) + 1])]
