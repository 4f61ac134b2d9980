"""The config keys that a model's scores depend on, besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS = (
    "MODEL.META_ARCHITECTURE",
    "INPUT.FORMAT",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "INPUT.FACE_CROP.ENABLED",
    "TEST.AUG.ENABLED",
    "TEST.IMAGE_SCORE",
    "TEST.TILE.SIZE",
)
_FACE_KEYS = (
    *(f"INPUT.FACE_CROP.{name}" for name in ("RULE", "MARGIN", "WHOLE_ABOVE", "SMALLEST", "NOSE_BOX")),
    *(f"INPUT.FACES.{name}" for name in ("FINDER", "MAX_SIDE", "SECOND_LOOK", "DLIB_MIN_SCORE", "DLIB_UPSAMPLE")),
    *("INPUT.FACES.YUNET_MIN_SCORE", "INPUT.FACES.YUNET_NMS", "TEST.FACE_SCORE"),
)
_VIEW_KEYS = ("TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.AUG.FLIP")
_TILE_KEYS = ("TEST.TILE.OVERLAP", "TEST.TILE.SCORE")


def prediction_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Pick out of a config what scores depend on; keys of what is switched off are left out.

    Args:
        config: a `CfgNode`, or its YAML as nested dicts. Keys that it lacks, as an older one does, are left out, too.

    Returns:
        JSON values by dotted key.
    """
    keys = list(_KEYS)
    for switch, more in (
        ("INPUT.FACE_CROP.ENABLED", _FACE_KEYS),
        ("TEST.AUG.ENABLED", _VIEW_KEYS),
        ("TEST.TILE.SIZE", _TILE_KEYS),
    ):
        keys += more if _value(config, switch) else ()
    found = {key: _value(config, key) for key in keys}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in found.items() if value is not None
    }


def _value(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if part not in node:
            return None
        node = node[part]
    return node
