"""Keys and values of earlier configs under the names they have now; each is read with a warning.

Configs travel in checkpoints and prediction stores, so an old name must stay readable.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

RENAMED_KEYS = {
    "INPUT.AUGMENT.COLOUR_PROB": "INPUT.AUGMENT.COLOR_PROB",
    "INPUT.AUGMENT.COLOUR_KINDS": "INPUT.AUGMENT.COLOR_KINDS",
    "INPUT.AUGMENT.GREY_PROB": "INPUT.AUGMENT.GRAY_PROB",
    "INPUT.SELF_BLEND.COLOUR_PROB": "INPUT.SELF_BLEND.COLOR_PROB",
    "INPUT.SELF_BLEND.POST.COLOUR_PROB": "INPUT.SELF_BLEND.POST.COLOR_PROB",
}
# One word stood for three shares of three things.
RENAMED_VALUES = {
    ("TEST.IMAGE_SCORE", "topk"): "top_pixels",
    ("TEST.VIDEO_SCORE", "topk"): "top_frames",
    ("TEST.TILE.SCORE", "topk"): "top_tiles",
}
# The backbone was once kept in fp32 up to any of these strides; now whole or not at all.
RENAMED_VALUES |= {("TEST.FP32_STRIDE", str(stride)): "32" for stride in (2, 4, 8, 16)}


def current_key(key: str) -> str:
    """Return the name that a key, such as "INPUT.AUGMENT.GREY_PROB", has now; warns if it is another one."""
    if key not in RENAMED_KEYS:
        return key
    logger.warning("config key %s is now %s", key, RENAMED_KEYS[key])
    return RENAMED_KEYS[key]


def current_value(key: str, value: Any) -> Any:
    """Return the name that a key's value has now; warns if it is another one."""
    if not isinstance(value, (str, int)) or (key, str(value)) not in RENAMED_VALUES:
        return value
    new = RENAMED_VALUES[key, str(value)]
    logger.warning("config value %s %s is now %s", key, value, new)
    return type(value)(new)


def current_tree(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Bring a config file's nested dict under current names.

    Args:
        values: as YAML gives it; what is not a dict of names passes unchanged.
        prefix: the key of `values` itself, with a dot at its end.
    """
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            renamed[name] = current_tree(value, f"{prefix}{name}.")
        else:
            key = current_key(f"{prefix}{name}")
            renamed[key.rpartition(".")[2]] = current_value(key, value)
    return renamed


def current_options(options: Sequence[str]) -> list[str]:
    """Bring a command line's KEY VALUE KEY VALUE ... under current names."""
    keys = [current_key(key) for key in options[::2]]
    return [word for key, value in zip(keys, options[1::2], strict=True) for word in (key, current_value(key, value))]
