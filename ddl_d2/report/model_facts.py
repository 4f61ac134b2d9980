"""What is known of a model: who made the prediction, what it was trained on and what it cannot see."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

import torch

from ddl_d2.checkpoint.saving import read_metadata
from ddl_d2.inference.model import Model
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.version import __version__

_PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "av", "timm", "scipy", "scikit-image",
    "dlib-bin", "c2pa-python",
)  # fmt: skip
CARD = "MODEL_CARD.md"
"""A card of this name beside the weights counts as theirs if its first heading begins with their name."""

UNKNOWN = "The weights do not say what they were trained on, and no model card lies beside them."


def model_facts(model: Model) -> dict[str, Any]:
    """What made a prediction, as JSON values: `Model.describe`, the whole config, and what the model says of itself."""
    path = Path(model.cfg.MODEL.WEIGHTS)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    name = metadata.get("name") or path.stem
    card = _card_beside(path, name)
    sections = card_sections(card.read_text(encoding="utf-8")) if card is not None else {}
    described = [metadata["description"]] if metadata.get("description") else []
    return {
        **model.describe(),
        "name": name,
        "map_threshold": model.map_threshold,
        "config": model.cfg.dump(),
        "trained_on": described or [UNKNOWN],
        "made_for": _bullets(sections.get("What it is for", "")),
        "not_made_for": _bullets(sections.get("What it is not for", "")) if sections or described else [UNKNOWN],
        "card_sha256": file_sha256(card) if card is not None else None,
    }


def environment(device: str) -> dict[str, Any]:
    """What besides file and model the numbers may depend on: versions, device, threads and instructions."""
    return {
        "versions": {"ddl_d2": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def card_sections(text: str) -> dict[str, str]:
    """The sections of a model card, by their headings (##)."""
    parts = re.split(r"^## +(.+)$", text, flags=re.M)
    return {heading.strip(): body.strip() for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def _card_beside(weights: Path, name: str) -> Path | None:
    card = weights.parent / CARD
    if not card.is_file():
        return None
    first = card.read_text(encoding="utf-8").lstrip().partition("\n")[0]
    return card if re.match(rf"# +{re.escape(name)}\b", first) else None


def _bullets(text: str) -> list[str]:
    """The items of a Markdown list, each on one line, without emphasis."""
    items = re.findall(r"^- (.+(?:\n  .+)*)", text, flags=re.M)
    return [" ".join(item.replace("*", "").split()) for item in items]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
