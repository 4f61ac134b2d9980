"""What a prediction came from: config, weights and versions, for everything that is written for others to read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import detectron2
import timm
import torch
from detectron2.config import CfgNode

from ddl_d2.version import __version__


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def provenance(cfg: CfgNode) -> dict[str, Any]:
    """Plain values: `config` (YAML), `weights` and their `weights_sha256`, `map_threshold`, `versions`."""
    weights = Path(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else None
    return {
        "config": cfg.dump(),
        "weights": weights.name if weights else None,
        "weights_sha256": file_sha256(weights) if weights and weights.is_file() else None,
        "map_threshold": cfg.TEST.MAP_THRESHOLD,
        "versions": {
            "ddl_d2": __version__,
            "detectron2": detectron2.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    }
