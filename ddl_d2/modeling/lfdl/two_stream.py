"""Two encoders, one on the image and one on its noise residual, that exchange features between their stages.

Source: "Locate and Verify: A Two-Stream Network for Improved Deepfake Detection" (Shuai et al., ACM MM 2023). The
stream of the image (rgb) localizes, that of the noise classifies.

Shapes: `B` images, `C` channels of a stage, `H, W` pixels, `h, w` places of a map, `N` = h · w.
"""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.srm import SRMResiduals
from ddl_d2.modeling.lfdl.staged_encoder import StagedEncoder

UPDATES = ("simultaneous", "sequential")
READINGS = ("paper", "released")
# Stages after which the streams enhance each other, and those where the rgb stream guides the other.
_ENHANCED, _GUIDED = (0, 1, 2), (3, 4, 5)


def enhance(rgb: Tensor, noise: Tensor, *, sequential: bool = False) -> tuple[Tensor, Tensor]:
    """Enhance cross-modality consistency (CMCE, eq. 2): add to each stream the other, as far as they agree.

    With c the cosine over channels at each place: ReLU(rgb + c · noise), ReLU(noise + c · rgb).

    Args:
        rgb: B×C×h×w.
        noise: B×C×h×w.
        sequential: the second sum takes the first (before its ReLU) instead of `rgb`, as the released code does.
    """
    cosine = F.cosine_similarity(rgb, noise, dim=1)[:, None]
    enhanced_rgb = rgb + cosine * noise
    enhanced_noise = noise + cosine * (enhanced_rgb if sequential else rgb)
    return enhanced_rgb.relu(), enhanced_noise.relu()


class ForgeryGuidedAttention(nn.Module):
    """Local forgery guided attention (LFGA): places share noise features where their rgb features are alike.

    Q and K are 1 × 1 convolutions of the rgb map to a quarter of its channels, V one of the noise map;
    ReLU(noise + γ · softmax(Q Kᵀ) V), without a scale in the softmax.
    """

    def __init__(self, *, channels: int, reading: str = "paper") -> None:
        """Make the convolutions.

        Args:
            channels: C of both maps.
            reading: "paper" (one convolution for Q and K, γ = 1) or "released" (two, and γ learned, from 0 on).

        Raises:
            ConfigError: an unknown reading.
        """
        super().__init__()
        _check("LFGA", reading, READINGS)
        released = reading == "released"
        self.query = nn.Conv2d(channels, channels // 4, 1)
        self.key = nn.Conv2d(channels, channels // 4, 1) if released else None
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(self.value.weight.new_zeros(1)) if released else None

    def forward(self, noise: Tensor, rgb: Tensor) -> Tensor:
        """Add to `noise`, B×C×h×w, the attention over its places that `rgb`, B×C×h×w, guides; the result is >= 0."""
        query = _places(self.query(rgb))
        key = query if self.key is None else _places(self.key(rgb))
        # An axis of one head, which is all that exporters know.
        query, key, value = (x[:, None] for x in (query, key, _places(self.value(noise))))
        shared = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
        shared = shared.transpose(1, 2).unflatten(2, noise.shape[-2:])
        return (noise + (shared if self.gamma is None else self.gamma * shared)).relu()


def _places(x: Tensor) -> Tensor:
    """Flatten B×C×h×w to B×N×C."""
    return x.flatten(2).transpose(1, 2)


class TwoStreamEncoder(Backbone):
    """Encoder of an image into the maps of both streams, `rgb0` ... `rgb5` and `noise0` ... `noise6`.

    After stages 0 to 2 the streams `enhance` each other; both get the sum of the two maps of stage 2 (eq. 3). In stages
    3 to 5 the rgb map guides the noise map. Nothing reads a seventh stage of the rgb stream, so it has none.
    """

    def __init__(
        self,
        *,
        name: str,
        pretrained: str = "",
        srm_scale: float = 1.0,
        update: str = "simultaneous",
        attention: str = "paper",
    ) -> None:
        """Build both streams.

        Args:
            name: see `StagedEncoder`.
            pretrained: see `StagedEncoder`; both streams start from the same weights.
            srm_scale: see `SRMResiduals`.
            update: of `enhance`, "simultaneous" (the paper's eq. 2) or "sequential" (the released code).
            attention: `reading` of `ForgeryGuidedAttention`.

        Raises:
            ConfigError: an unknown encoder, update or reading, or weights that do not fit.
        """
        super().__init__()
        _check("CMCE", update, UPDATES)
        self.sequential = update == "sequential"
        self.srm = SRMResiduals(scale=srm_scale)
        self.noise = StagedEncoder(name=name, pretrained=pretrained)
        self.rgb = StagedEncoder(name=name, pretrained=pretrained, num_stages=len(self.noise) - 1)
        self.attentions = nn.ModuleList(
            ForgeryGuidedAttention(channels=self.rgb.channels[stage], reading=attention) for stage in _GUIDED
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode normalized images, B×3×H×W; returns {name: B×C×h×w}."""
        rgb, noise = images, self.srm(images)
        features: dict[str, Tensor] = {}
        for stage in range(len(self.rgb)):
            rgb, noise = self.rgb[stage](rgb), self.noise[stage](noise)
            if stage in _ENHANCED:
                rgb, noise = enhance(rgb, noise, sequential=self.sequential)
            else:
                noise = self.attentions[stage - _GUIDED[0]](noise, rgb)
            features[f"rgb{stage}"], features[f"noise{stage}"] = rgb, noise
            if stage == _ENHANCED[-1]:
                rgb = noise = rgb + noise
        last = len(self.rgb)
        features[f"noise{last}"] = self.noise[last](noise)
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each map."""
        return {
            f"{stream}{stage}": ShapeSpec(channels=channels, stride=stride)
            for stream, encoder in (("rgb", self.rgb), ("noise", self.noise))
            for stage, (channels, stride) in enumerate(zip(encoder.channels, encoder.strides, strict=True))
        }


def _check(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"MODEL.LFDL.{key} is '{value}': it must be {' or '.join(allowed)}")
