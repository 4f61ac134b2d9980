"""A second look at images in which no face is found: with a border around, for faces that fill the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ddl_d2.faces.face import Face, FaceFinder

# Width of the border, as a share of the image's sides.
_BORDER = 1 / 3


class SecondLook:
    """A face finder that, where another finds nothing, lets it look again at the image with its edges drawn out.

    Detectors miss faces whose chin or forehead touches the edge, as crops of faces have them.

    Args:
        finder: what looks, once or twice.
    """

    def __init__(self, finder: FaceFinder) -> None:
        self.finder = finder

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the cache tells finders apart by."""
        return {**self.finder.settings, "second_look": round(_BORDER, 3)}

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Find the faces of `image` (uint8 H×W×3 RGB), from left to right."""
        faces = self.finder(image)
        if faces:
            return faces
        y, x = (round(_BORDER * side) for side in image.shape[:2])
        wider = cv2.copyMakeBorder(image, y, y, x, x, cv2.BORDER_REPLICATE)
        back = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y]])
        return [face.moved(back) for face in self.finder(wider)]
