"""What an exported ONNX file says of itself, kept as JSON in the model's metadata. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

METADATA = "ddl_d2"
"""The key of the metadata."""


@dataclass(frozen=True, kw_only=True)
class OnnxAbout:
    """All that predicting needs besides the graph, and what was measured after the export.

    Attributes:
        name: of the weights, and what for; may be empty.
        meta_architecture: the system's registered name.
        weights_sha256: of the weights' file.
        map_threshold: a pixel is forged where the map is above it.
        max_pixels: the most pixels an image may have.
        faces: None, or of a model of faces the `finder` (arguments of `make_remembering_finder`), the `crop`
            (arguments of `FaceCropper`) and the `score` (rule of `face_score`).
        precision: of the stored weights, "float32", "float16" or "int8".
        parity: largest differences from the original model: `score`, `map`, and on how many `images`.
        quality: of a lower precision, on labeled images: `before`, `after`, and the `loss` of each figure.
    """

    name: str
    meta_architecture: str
    weights_sha256: str
    map_threshold: float
    max_pixels: int
    faces: Mapping[str, Any] | None
    precision: str = "float32"
    parity: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OnnxAbout:
        """Read what `as_dict` gave; values that are not known here, of a later version, are left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
