"""Which config keys a resumed run may change: the others are in its checkpoint, which would override them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from ddl_d2.config.renamed import current_tree
from ddl_d2.errors import ConfigError

REFUSED = (
    "SEED",
    "MODEL",
    "DATASETS.TRAIN",
    "DATASETS.FF_COMPRESSION",
    "DATASETS.FF_METHODS",
    "DATASETS.FRAMES_PER_VIDEO",
    "DATASETS.FAKE_WITHOUT_MASK",
    "DATALOADER.SAMPLER_TRAIN",
    "INPUT.SELF_BLEND.ENABLED",
    "INPUT.SELF_BLEND.PAIRS",
    "INPUT.FACE_SWAP.ENABLED",
    "SOLVER.OPTIMIZER",
    "SOLVER.EMA.ENABLED",
    "SOLVER.FREEZE",
)
"""Keys, or groups of keys, whose values are in a checkpoint: weights, optimizer state, the order of training images.

All others are applied: what they decide is made anew from the config when a run is resumed.
"""

APPLIED = ("MODEL.DEVICE", "MODEL.COMPILE", "MODEL.PARTIAL_WEIGHTS", "MODEL.LOUPE.TOKEN_CACHE")
"""Exceptions from `REFUSED`; so are keys of MODEL that end in _WEIGHT, the weights of losses."""

STARTING_WEIGHTS = (
    "MODEL.WEIGHTS",
    "MODEL.TIMM.PRETRAINED",
    "MODEL.MESORCH.LOCAL.PRETRAINED",
    "MODEL.MESORCH.GLOBAL.PRETRAINED",
    "MODEL.MIX_TRANSFORMER.PRETRAINED",
    "MODEL.PLAIN_VIT.PRETRAINED",
)
"""Files that a new run starts from: a resumed one may drop them (""), but it does not read another."""


class Change(NamedTuple):
    """A key whose value in the config of a resumed run (`new`) is not that of its checkpoint (`saved`)."""

    key: str
    saved: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.saved!r}, is now {self.new!r}"

    @property
    def refused(self) -> bool:
        """Whether the checkpoint would override the new value."""
        if self.key in STARTING_WEIGHTS:
            return bool(self.new)
        if self.key in APPLIED or (self.key.startswith("MODEL.") and self.key.endswith("_WEIGHT")):
            return False
        return any(self.key == one or self.key.startswith(f"{one}.") for one in REFUSED)


def changed_keys(saved: str, new: str) -> list[Change]:
    """Compare two configs, as `CfgNode.dump` wrote them; a key that only one of them has is no change."""
    before, now = values_of(saved), values_of(new)
    return [Change(key, before[key], now[key]) for key in sorted(before.keys() & now.keys()) if before[key] != now[key]]


def check_resumable(saved: str, new: str) -> list[Change]:
    """Refuse to resume under a config that the checkpoint would override; return the changes that are applied.

    Args:
        saved: the checkpoint's config, as `CfgNode.dump` wrote it; "" if it is not known.
        new: the config to go on with.

    Raises:
        ConfigError: names each key that cannot change, with both values.
    """
    changes = changed_keys(saved, new) if saved and new else []
    refused = [change for change in changes if change.refused]
    if refused:
        raise ConfigError(
            f"--resume cannot change what the checkpoint holds: {'; '.join(map(str, refused))}. Give the earlier "
            "values, or start a new run in another OUTPUT_DIR (MODEL.WEIGHTS may name this run's weights)"
        )
    return changes


def values_of(text: str) -> dict[str, Any]:
    """Read a dumped config as one value for each key, such as "SOLVER.BASE_LR", under current names."""
    return dict(_leaves(current_tree(yaml.safe_load(text)), ""))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
