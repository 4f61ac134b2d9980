"""DATASETS.SOURCES: further datasets by a name of the user's, each with a weight in training.

That is how forgeries of generators that are not run here (face swaps, diffusion inpainting, ...) are used: a folder of
their images and masks, told apart by its name.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ddl_d2.data.datasets.columns import DatasetColumns
from ddl_d2.data.datasets.load import is_one_dataset, load_dataset
from ddl_d2.data.datasets.report import DatasetReport
from ddl_d2.data.datasets.splits import SPLITS
from ddl_d2.data.datasets.video import VideoOptions
from ddl_d2.errors import ConfigError, DatasetError

_FORM = 'a list of [name, root, weight], such as [["simswap", "/data/simswap", 2.0]]'
_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]*")


class Source(NamedTuple):
    """One entry of DATASETS.SOURCES; registered as `names`."""

    name: str
    root: str
    weight: float

    @property
    def names(self) -> dict[str, str]:
        """Split -> the name it is registered under: "train" -> "simswap_train"."""
        return {split: f"{self.name}_{split}" for split in SPLITS}


def parse_sources(entries: Sequence[Any]) -> list[Source]:
    """Read the value of DATASETS.SOURCES; a weight that is left out is 1.

    Raises:
        ConfigError: an entry of another form, a name that is no word or is given twice, a weight that is not positive.
    """
    sources: list[Source] = []
    for number, entry in enumerate(entries):
        key = f"DATASETS.SOURCES[{number}]"
        if not isinstance(entry, (list, tuple)) or len(entry) not in (2, 3):
            raise ConfigError(f"{key} is {entry!r}: DATASETS.SOURCES is {_FORM}")
        name, root, weight = (*entry, 1.0)[:3]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{key}: the name {name!r} must be a word of letters, digits, - and _; it is {_FORM}")
        if not isinstance(root, str) or not root:
            raise ConfigError(f"{key} ({name}): the root {root!r} must be the path of a folder; it is {_FORM}")
        usable = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not usable or not math.isfinite(weight) or weight <= 0:
            raise ConfigError(f"{key} ({name}): the weight {weight!r} must be a positive number")
        if name in (source.name for source in sources):
            raise ConfigError(f"{key}: the name {name} is given twice in DATASETS.SOURCES")
        sources.append(Source(name, root, float(weight)))
    return sources


def weights_by_dataset(entries: Sequence[Any]) -> Mapping[str, float]:
    """Map the registered name of each source's training set to its weight. Raises as `parse_sources`."""
    return {source.names["train"]: source.weight for source in parse_sources(entries)}


def load_source(
    source: Source, split: str, *, fake_without_mask: str, video: VideoOptions | None = None
) -> tuple[DatasetColumns, DatasetReport]:
    """Load one split of a source; a folder that is one dataset (fake/, masks/, ...) without splits is its "train".

    Raises:
        DatasetError: no such folder, or nothing usable there.
    """
    root = os.path.expanduser(source.root)
    if not os.path.isdir(root):
        raise DatasetError(f"{source.root}: no such folder (DATASETS.SOURCES, {source.name})")
    whole = split == "train" and is_one_dataset(root)
    return load_dataset(root, None if whole else split, fake_without_mask=fake_without_mask, video=video)
