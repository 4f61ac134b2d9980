"""Swin-Unet's decoder on any hierarchical encoder: patch expansion, skip connections, window attention.

Shapes: `B` images, `C` channels at stride 4 (2C, 4C at strides 8, 16), `H, W` pixels of the padded batch.
"""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.layers.patches import PatchExpand, interleave
from ddl_d2.modeling.backbone.timm_backbone import PadFirstSwinBlock

STRIDES = (4, 8, 16, 32)


class UNetStage(nn.Module):
    """Stage that doubles the resolution: expand, join the encoder's map of that resolution, attend within windows.

    The linear layers take whatever channel counts the encoder has; with C, 2C, 4C, 8C they are the paper's.
    """

    def __init__(
        self, *, in_channels: int, skip_channels: int, out_channels: int, depth: int, num_heads: int, window_size: int
    ) -> None:
        super().__init__()
        self.expand = PatchExpand(in_channels=in_channels, out_channels=out_channels, factor=2)
        self.join = nn.Linear(skip_channels + out_channels, out_channels)
        self.blocks = nn.Sequential(
            *[
                PadFirstSwinBlock(
                    out_channels,
                    input_resolution=(window_size, window_size),  # unused: any size is partitioned, the mask is dynamic
                    num_heads=num_heads,
                    window_size=window_size,
                    shift_size=0 if index % 2 == 0 else window_size // 2,
                    always_partition=True,
                    dynamic_mask=True,
                )
                for index in range(depth)
            ]
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Decode B×h×w×in, joined by the encoder's B×2h×2w×skip, to B×2h×2w×out."""
        return self.blocks(self.join(torch.cat([skip, self.expand(x)], dim=-1)))


class SwinUNetDecoder(nn.Module):
    """Decoder of an encoder's maps of strides 4, 8, 16, 32 into one logit for each pixel."""

    def __init__(
        self,
        *,
        input_shape: dict[str, ShapeSpec],
        embed_dim: int,
        depths: list[int],
        num_heads: list[int],
        window_size: int,
    ) -> None:
        """Make the stages.

        Args:
            input_shape: channels and strides of the encoder's maps.
            embed_dim: C.
            depths: Swin blocks at strides 16, 8, 4.
            num_heads: attention heads there; each divides 4C, 2C, C.
            window_size: side of an attention window, in tokens.

        Raises:
            ConfigError: other strides, or heads that do not divide the channels.
        """
        super().__init__()
        by_stride = {shape.stride: name for name, shape in input_shape.items()}
        if not set(STRIDES) <= set(by_stride):
            raise ConfigError(
                f"SwinUNet needs encoder features of strides {STRIDES}, and has {sorted(by_stride)}: "
                'set MODEL.SEM_SEG_HEAD.IN_FEATURES to ["res2", "res3", "res4", "res5"]'
            )
        widths = [4 * embed_dim, 2 * embed_dim, embed_dim]
        if not len(depths) == len(num_heads) == len(widths) or any(
            width % heads for width, heads in zip(widths, num_heads, strict=True)
        ):
            raise ConfigError(
                f"MODEL.SWIN_UNET.DECODER_DEPTHS {depths} and DECODER_HEADS {num_heads} must be one each for strides "
                f"16, 8, 4, and the heads must divide {widths} (4, 2, 1 times EMBED_DIM)"
            )
        self.deepest, *self.skips = [by_stride[stride] for stride in reversed(STRIDES)]
        channels = input_shape[self.deepest].channels
        self.stages = nn.ModuleList()
        for skip, width, depth, heads in zip(self.skips, widths, depths, num_heads, strict=True):
            self.stages.append(
                UNetStage(
                    in_channels=channels,
                    skip_channels=input_shape[skip].channels,
                    out_channels=width,
                    depth=depth,
                    num_heads=heads,
                    window_size=window_size,
                )
            )
            channels = width
        self.to_pixels = PatchExpand(in_channels=embed_dim, out_channels=embed_dim, factor=4)
        self.predict = nn.Linear(embed_dim, 1)
        self.apply(_init_linear)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Decode {name: B×C×H/stride×W/stride} into logits B×H×W."""
        x = features[self.deepest].permute(0, 2, 3, 1)
        for stage, skip in zip(self.stages, self.skips, strict=True):
            x = stage(x, features[skip].permute(0, 2, 3, 1))
        # Predicted before it is rearranged: one channel moves instead of C, and the values are the same.
        return interleave(self.predict(self.to_pixels.patches(x))).squeeze(-1)


def _init_linear(module: nn.Module) -> None:
    """Initialize linear layers as Swin does its own."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
