"""The README's recipes run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model
from torch import nn

from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.io.image import write_png
from tests.conftest import ROOT

NAMES = {"Path": Path, "np": np, "torch": torch, "nn": nn, "F": F}


def _block(marker: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    return next(block for block in blocks if marker in block)


@pytest.fixture
def my_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("real_0", "real_1", "fake_0", "fake_1"):
        write_png(tmp_path / "mine" / f"{name}.png", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        mask = np.zeros((40, 50), dtype=bool)
        mask[5:20, 5:30] = True
        if name.startswith("fake"):
            write_png(tmp_path / "mine" / "masks" / f"{name}.png", mask)
    exec(_block("my_images"), dict(NAMES))
    yield "my_images"
    DatasetCatalog.remove("my_images")


def test_a_dataset_and_a_system_train_and_evaluate(my_images, tiny_cfg, tmp_path):
    exec(_block("MeanColor"), dict(NAMES))
    cfg = tiny_cfg(
        "MODEL.META_ARCHITECTURE", "MeanColor",
        "DATASETS.TRAIN", f"('{my_images}',)",
        "DATASETS.TEST", f"('{my_images}',)",
        "SOLVER.IMS_PER_BATCH", "2",
        "SOLVER.MAX_ITER", "2",
        "OUTPUT_DIR", str(tmp_path / "out"),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    ForgeryTrainer(cfg).train()
    model = META_ARCH_REGISTRY.get("MeanColor")(cfg).eval()
    results = ForgeryTrainer.test(cfg, model)
    assert results["ddl"]["num_images"] == 4
    assert results["ddl"]["num_localized"] == 2


def test_a_backbone_serves(tiny_cfg, make_row):
    if "Pyramid" not in BACKBONE_REGISTRY:
        exec(_block("Pyramid"), dict(NAMES))
    model = build_model(tiny_cfg("MODEL.BACKBONE.NAME", "Pyramid"))
    losses = model.train()([make_row(0), make_row(1, fake=False)])
    assert all(torch.isfinite(loss) for loss in losses.values())
