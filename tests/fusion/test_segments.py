"""The fusion of segments that several systems found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddl_d2.cli.fuse import main
from ddl_d2.errors import FusionError
from ddl_d2.fusion.segments import fuse_segments, fused_clip_scores
from ddl_d2.fusion.stores import align_stores
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter


def _store(folder, segments, score=0.5):
    with PredictionStoreWriter(folder, {}) as writer:
        writer.add("a.mp4", score, label=1, segments=np.array(segments, dtype=float).reshape(-1, 3))
    return PredictionStore(folder)


def test_what_both_found_counts_once():
    found = fuse_segments([np.array([[0.9, 1.0, 2.0]]), np.array([[0.8, 1.0, 2.0], [0.3, 5.0, 6.0]])])
    # The repetition overlaps wholly: 0.8 · exp(-1 / 0.7234).
    assert found.tolist() == [
        [0.9, 1, 2],
        [0.3, 5, 6],
        [pytest.approx(0.8 * math.exp(-1 / 0.7234)), 1, 2],
    ]


def test_the_command_fuses_stores(tmp_path, capsys):
    _store(tmp_path / "one", [[0.9, 1, 2]], 0.9)
    _store(tmp_path / "two", [[0.8, 3, 4]], 0.5)
    stores = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["segments", *stores, "--score", "mean", "--output", str(tmp_path / "fused")]) == 0
    assert "1 images from 2 stores" in capsys.readouterr().out
    fused = PredictionStore(tmp_path / "fused")
    assert fused.score("a.mp4") == pytest.approx(0.7)
    assert fused.segments["a.mp4"].tolist() == [[0.9, 1, 2], [0.8, 3, 4]]


def test_stores_of_images_are_refused(tmp_path, capsys):
    _store(tmp_path / "clips", [])
    with PredictionStoreWriter(tmp_path / "images", {}) as writer:
        writer.add("a.mp4", 0.5)
    stores = [str(tmp_path / name) for name in ("clips", "images")]
    with pytest.raises(SystemExit, match="2"):
        main(["segments", *stores, "--output", str(tmp_path / "fused")])
    assert "not about clips" in capsys.readouterr().err


def test_an_unknown_rule_of_scores_is_told(tmp_path):
    systems = align_stores([_store(tmp_path / "one", []), _store(tmp_path / "two", [])])
    with pytest.raises(FusionError, match="not 'median'"):
        fused_clip_scores(systems, "median")
