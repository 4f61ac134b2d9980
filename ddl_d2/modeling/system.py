"""The base class of every system on images: rows in, losses or predictions out, and what all systems share.

A batch is a list of rows, one dict for each image, as the mappers make them. Shapes: `B` images, `C` channels, `H, W`
pixels of an image as the network gets it, `N` instances.

Row, for predicting:

    image               uint8 RGB, 3×H×W
    height, width       of the original image (default: those of `image`)
    tokens              {name: tensor}, instead of `image`: what Loupe's encoder made of it (a token cache's)

Row, for training, besides:

    is_fake             int, 0 real or 1 fake
    forgery_mask        bool H×W, True where a pixel is forged
    soft_mask           float H×W in [0, 1], optional: how forged each pixel is; read instead of `forgery_mask`
    instances           `Instances` with `gt_masks` (BitMasks N×H×W) and `gt_classes` (int64 N)
    localization_valid  bool (default True): whether the forged pixels are known
    nose_box            float (4,), optional: x0, y0, x1, y1 in pixels of `image`
    image_id            str, named in errors

A system reads those keys that it needs. In training mode it returns a dict of named losses (0-dim tensors, already
weighted; their sum is minimized). In eval mode it returns one dict for each row, at the size of the original image:

    fake_score          float in [0, 1], the probability that the image is fake
    forgery_map         float32 H×W in [0, 1], the probability that a pixel is forged (absent: the system only detects)
    instances           `Instances` with `pred_masks` (bool N×H×W), `scores` (float N) and `pred_classes` (int64 N, all
                        0), as Detectron2's `Visualizer` and `DefaultPredictor` take them; without a map, without fields

`tests/contract/test_every_system.py` holds every registered system to this. A plain `nn.Module` that keeps to it is
trained and evaluated, too; the base class spares its author what is not particular to the system.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.convolution import use_fast_point_convolutions
from ddl_d2.layers.linear import use_fast_linear
from ddl_d2.modeling.heads import ImageSizes, score_from_map
from ddl_d2.modeling.postprocessing import Size, map_output
from ddl_d2.modeling.preprocessing import groups_of_one_size, normalized_batch, stretched_batch


@dataclass(frozen=True, kw_only=True)
class SystemOptions:
    """The config values that every system takes, whatever it is made of.

    Attributes:
        pixel_mean: what is subtracted from each channel (R, G, B in [0, 255]) before the network.
        pixel_std: by what the difference is divided.
        map_threshold: a pixel is forged where the map is strictly greater; for `instances`.
        instance_mode: "union" or "connected_components", see `postprocessing.map_instances`.
        max_instances: the most instances of an image.
        image_score: rule of `heads.score_from_map` for a system without an image head.
        fp32_backbone: keep the backbone in fp32 in eval mode under bfloat16 autocast, see `ForgerySystem.encode`.
    """

    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    map_threshold: float = 0.5
    instance_mode: str = "union"
    max_instances: int = 100
    image_score: str = "max"
    fp32_backbone: bool = True

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SystemOptions:
        """Gather the values from their config keys."""
        return cls(
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            map_threshold=cfg.TEST.MAP_THRESHOLD,
            instance_mode=cfg.INPUT.INSTANCES,
            max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
            image_score=cfg.TEST.IMAGE_SCORE,
            fp32_backbone=cfg.TEST.FP32_STRIDE > 0,
        )


class Probabilities(NamedTuple):
    """What a network says of a batch, before anything is cut or resized to the original images.

    Attributes:
        fake: float32 B in [0, 1], P(fake); None: it follows from the map (`SystemOptions.image_score`).
        forged: float32 B×H×W, P(forged) of the padded or stretched input's pixels.
        authentic: float32 B×H×W, where the two compete: the map is then forged / (forged + authentic), after both were
            resized; None: it is `forged` itself, clipped to [0, 1].
    """

    fake: Tensor | None
    forged: Tensor
    authentic: Tensor | None = None


class ForgerySystem(nn.Module, ABC):
    """A network that detects or localizes forgeries; see the module for what goes in and what comes out.

    A system is a subclass that implements `losses`, and `probabilities` or `predictions`, registered in Detectron2's
    `META_ARCH_REGISTRY` with a `from_config` of its own:

        @META_ARCH_REGISTRY.register()
        class MySystem(ForgerySystem):
            @configurable
            def __init__(self, *, backbone, head, options):
                super().__init__(backbone=backbone, options=options)
                self.head = head
                self.use_fast_layers()

            @classmethod
            def from_config(cls, cfg):
                backbone = build_backbone(cfg)
                return {"backbone": backbone, "head": ..., "options": SystemOptions.from_config(cfg)}

    To be explained by a heat map (`inference/gradcam.py`), a system with an image head also offers `image_logits`, and
    its backbone `output_shape`.

    Attributes:
        backbone: its parameters learn at SOLVER.BACKBONE_MULTIPLIER times the rate of the others.
        options: see `SystemOptions`.
        size_divisibility: images are padded to a multiple of it, and rows that need other padding are predicted apart;
            0: images are brought to one size.
        size: where `size_divisibility` is 0, that size, (height, width).
        pixel_mean, pixel_std: 3×1×1 float32 on the system's device; not in `state_dict`, as the config has them.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    size_divisibility: int = 0
    size: Size

    def __init__(self, *, backbone: nn.Module, options: SystemOptions) -> None:
        kind = type(self)
        if kind.predictions is ForgerySystem.predictions and kind.probabilities is ForgerySystem.probabilities:
            raise TypeError(f"{kind.__name__} has neither `probabilities` nor `predictions`")
        super().__init__()
        self.backbone = backbone
        self.options = options
        self.register_buffer("pixel_mean", torch.tensor(options.pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(options.pixel_std).view(-1, 1, 1), persistent=False)

    def use_fast_layers(self, *convolutional: nn.Module | None) -> None:
        """Choose the fastest layout and kernels; the last line of a system's constructor, once all parts are there.

        Names, parameters and results stay as they are.

        Args:
            convolutional: parts besides the backbone whose convolutions run in channels-last layout, which is faster
                on CPUs and GPUs alike; None is passed over.
        """
        for part in (self.backbone, *convolutional):
            if part is not None:
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub
        use_fast_linear(self)
        use_fast_point_convolutions(self)

    @property
    def device(self) -> torch.device:
        """Where the system computes."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return the losses of a batch of rows in training mode, their predictions in eval mode; see the module."""
        if self.training:
            return self.losses(batched_inputs)
        outputs: list[dict[str, Any]] = [{}] * len(batched_inputs)
        with torch.no_grad():
            for group in self._batches(batched_inputs):
                for position, output in zip(group, self.predictions([batched_inputs[i] for i in group]), strict=True):
                    outputs[position] = output
        return outputs

    def _batches(self, rows: list[dict[str, Any]]) -> list[list[int]]:
        """Group the positions of rows that share a batch: each then gets the prediction that it has alone."""
        return groups_of_one_size(rows, self.size_divisibility) if self.size_divisibility else [list(range(len(rows)))]

    @abstractmethod
    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the named, weighted losses of a batch; every trainable parameter has to contribute to their sum."""

    def predictions(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return one dict for each row, in their order; called without gradients. See also `map_prediction`."""
        images, sizes = self.batch(batched_inputs)
        found = self.probabilities(images, sizes)
        scores: list[float | None] = [None] * len(sizes) if found.fake is None else found.fake.tolist()
        return [
            self.map_prediction(row, forged, unpadded, score)
            for row, forged, unpadded, score in zip(batched_inputs, found.forged, sizes, scores, strict=True)
        ]

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Run the network: a function of tensors alone, which can be exported (`ddl_d2/export`).

        Args:
            images: a normalized batch, float32 B×3×H×W: padded, or stretched to `size`.
            sizes: of each image within the padding.

        Raises:
            ConfigError: the system overrides `predictions` instead.
        """
        raise ConfigError(f"{type(self).__name__} has no `probabilities`, which an export needs")

    @property
    def fixed_size(self) -> Size | None:
        """The (height, width) of every batch, if the network only ever sees one: `size`; else None."""
        return None if self.size_divisibility else self.size

    def batch(self, rows: list[dict[str, Any]]) -> tuple[Tensor, list[Size]]:
        """Make one normalized batch of the rows' images, and the (height, width) of each within its padding."""
        if not self.size_divisibility:
            return stretched_batch(rows, self.size, self.pixel_mean, self.pixel_std), [self.size] * len(rows)
        images = normalized_batch(rows, self.pixel_mean, self.pixel_std, self.size_divisibility)
        return images.tensor, images.image_sizes

    def encode(self, *images: Tensor) -> Any:
        """Run the backbone, in fp32 where the options ask for it.

        Forensic traces are faint: the border of a swapped face changes pixels by a few gray levels, and bfloat16 keeps
        eight bits. With the backbone in fp32 the image head reads what it reads in fp32, and the score of an image
        stays the same (docs/benchmarks.md). Training, float16 and fp32 are left alone.

        Args:
            images: what the backbone takes: normalized fp32 batches, B×3×H×W.

        Returns:
            what the backbone gives: {name of a feature: B×C×h×w}, or `Tokens`.
        """
        device = self.device.type
        in_bfloat16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
        if self.backbone.training or not in_bfloat16 or not self.options.fp32_backbone:
            return self.backbone(*images)
        with torch.autocast(device, enabled=False):
            return self.backbone(*images)

    def encode_rows(self, rows: list[dict[str, Any]]) -> tuple[ImageList, dict[str, Tensor]]:
        """Make one padded batch of the rows' images, and run the backbone on it; -> the batch, and as `encode`."""
        images = normalized_batch(rows, self.pixel_mean, self.pixel_std, self.size_divisibility)
        return images, self.encode(images.tensor)

    def map_prediction(
        self, row: dict[str, Any], probabilities: Tensor, unpadded: Size, fake_score: float | None = None
    ) -> dict[str, Any]:
        """Make a row's prediction from its map: the map at the original size, the regions in it, and the score.

        Args:
            row: says the original size.
            probabilities: float in [0, 1] at the network's input size, which may be padded beyond `unpadded`.
            unpadded: (height, width) of the image within it.
            fake_score: None: the map's, by `options.image_score`.
        """
        options = self.options
        with torch.autocast(self.device.type, enabled=False):
            output = map_output(
                row,
                probabilities,
                unpadded,
                threshold=options.map_threshold,
                mode=options.instance_mode,
                limit=options.max_instances,
            )
        if fake_score is None:
            fake_score = score_from_map(output["forgery_map"], options.image_score)
        return output | {"fake_score": fake_score}
