"""SAM's mask decoder as a semantic head that takes no prompts.

Source: "Segment Anything" (ICCV 2023) and its release; the decoder itself is Hugging Face transformers'.

Shapes: `B` images, `C` channels, `h, w` places of the embedding (stride 16).
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.segmentor.blocks import by_stride

_MASKS = 4  # one for unambiguous prompts, which is read, and three more


@SEM_SEG_HEADS_REGISTRY.register()
class SamMaskHead(nn.Module):
    """The decoder with no points or boxes, the embedding of "no mask" at every place, and the single mask as output.

    The three masks for ambiguous prompts and the estimates of quality are computed from tokens that the single mask's
    token attends to; what only serves them is not trained.
    """

    frequencies: Tensor

    @configurable
    def __init__(self, *, input_shape: dict[str, ShapeSpec], in_features: list[str], num_classes: int = 1) -> None:
        """Make the decoder.

        Args:
            input_shape: the encoder's features.
            in_features: the name of the one that is read, whose channels are the decoder's.
            num_classes: 1.

        Raises:
            ConfigError: not one feature of the encoder, other than one class, or transformers is missing.
        """
        super().__init__()
        if len(in_features) != 1 or num_classes != 1:
            raise ConfigError(
                f"SamMaskHead reads one feature and gives one class: MODEL.SEM_SEG_HEAD.IN_FEATURES is {in_features}, "
                f'NUM_CLASSES {num_classes}; set ("p4",) and 1'
            )
        (self.in_feature,) = by_stride(in_features, input_shape, "MODEL.SEM_SEG_HEAD.IN_FEATURES")
        channels = input_shape[self.in_feature].channels
        self.decoder = _sam_decoder(channels)
        self.no_mask = nn.Embedding(1, channels)
        self.register_buffer("frequencies", torch.randn(2, channels // 2))
        _, *others = self.decoder.get_submodule("output_hypernetworks_mlps").children()
        for unread in (*others, self.decoder.get_submodule("iou_prediction_head")):
            unread.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.SEM_SEG_HEAD."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {"input_shape": input_shape, "in_features": head.IN_FEATURES, "num_classes": head.NUM_CLASSES}

    def positions(self, height: int, width: int) -> Tensor:
        """Encode the centers of h × w places by random Fourier features: 1×C×h×w."""
        device = self.frequencies.device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(self.frequencies.dtype) * 2 - 1
        angles = 2 * torch.pi * places @ self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1).permute(2, 0, 1)[None]

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Decode {name: B×C×h×w} into logits B×1×4h×4w."""
        embedding = features[self.in_feature]
        masks, _ = self.decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self.positions(*embedding.shape[-2:]).expand(embedding.shape[0], -1, -1, -1),
            sparse_prompt_embeddings=None,
            dense_prompt_embeddings=self.no_mask.weight.view(1, -1, 1, 1),
            multimask_output=False,
        )
        return masks[:, 0]


def _sam_decoder(channels: int) -> nn.Module:
    try:
        from transformers.models.sam.configuration_sam import SamMaskDecoderConfig
        from transformers.models.sam.modeling_sam import SamMaskDecoder
    except ImportError as error:
        raise ConfigError(
            "MODEL.SEM_SEG_HEAD.NAME SamMaskHead needs transformers: pip install 'ddl_d2[mesorch]'"
        ) from error
    config = SamMaskDecoderConfig(
        hidden_size=channels,
        iou_head_hidden_dim=channels,
        num_multimask_outputs=_MASKS - 1,
        layer_norm_eps=1e-5,  # PyTorch's default, as the release has it; transformers' own is 1e-6
    )
    config._attn_implementation = "sdpa"
    return SamMaskDecoder(config)
