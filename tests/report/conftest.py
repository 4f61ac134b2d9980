"""A small model with weights of chance, and a folder of images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from tests.conftest import ROOT, TINY


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """Two files of weights that carry a config of the whole system, much reduced: 0.safetensors, 1.safetensors."""
    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
    cfg = ddl_d2.load_config(ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml", [*TINY, *small])
    folder = tmp_path_factory.mktemp("weights")
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = build_model(cfg).state_dict()
        described = {"name": f"tiny_{seed}", "description": "weights of chance", "config": cfg.dump()}
        save_tensors(str(folder / f"{seed}.safetensors"), state, **described)
    return folder


@pytest.fixture
def photo(tmp_path) -> Path:
    """A JPEG of 96 × 80 pixels."""
    small = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(small).resize((96, 80), Image.Resampling.BICUBIC).save(path, quality=80)
    return path
