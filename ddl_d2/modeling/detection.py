"""What systems with an image head share: its logits, and the loss that teaches it. Shapes: `B` images."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.heads import ImageHead, ImageSizes
from ddl_d2.modeling.preprocessing import fake_labels


class DetectsByImageHead:
    """Adds to a `ForgerySystem` what it does with its image head.

    Attributes:
        image_head: None: the system only localizes.
        detection_weight: of `loss_det`.
    """

    image_head: ImageHead | None
    detection_weight: float

    def image_logits(self, features: dict[str, Tensor], image_sizes: ImageSizes) -> Tensor:
        """Return the logits of "fake", B, differentiable.

        Args:
            features: the backbone's {name: B×C×h×w}.
            image_sizes: the unpadded (height, width) of each image.

        Raises:
            ConfigError: there is no image head.
        """
        if self.image_head is None:
            raise ConfigError("MODEL.DETECTION.ENABLED is False: this model only localizes, it has no image head")
        return self.image_head(features, image_sizes)

    def detection_loss(self, logits: Tensor, rows: list[dict[str, Any]]) -> Tensor:
        """Compute the weighted binary cross-entropy of logits, B, and the rows' `is_fake`."""
        labels = fake_labels(rows, logits.device).float()
        return self.detection_weight * F.binary_cross_entropy_with_logits(logits, labels)
