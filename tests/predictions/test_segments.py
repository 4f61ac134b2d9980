"""Segments of clips in a prediction store."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ddl_d2.errors import StoreError
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter

_FOUND = np.array([[0.9, 1.0, 2.5], [0.25, 0.0, 0.48]])


@pytest.fixture
def store(tmp_path):
    with PredictionStoreWriter(tmp_path / "store", {}) as writer:
        writer.add("b.mp4", 0.9, label=1, segments=_FOUND)
        writer.add("a.mp4", 0.1, label=0, segments=np.zeros((0, 3)))
    return tmp_path / "store"


def test_segments_come_back(store):
    opened = PredictionStore(store)
    assert opened.has_segments
    assert not opened.has_maps
    assert opened.segments["b.mp4"].tolist() == _FOUND.tolist()
    assert opened.segments["a.mp4"].shape == (0, 3)


def test_two_processes_write_one_file(tmp_path):
    options = {"overwrite": True, "world_size": 2, "barrier": lambda: None}
    writers = [PredictionStoreWriter(tmp_path / "store", {}, rank=rank, **options) for rank in (0, 1)]
    for number, writer in enumerate(writers):
        writer.add(f"{number}.mp4", 0.9, segments=_FOUND)
        writer.add("both.mp4", 0.9, segments=_FOUND)  # a padded sampler shows it to both
    for writer in reversed(writers):  # the first completes the store
        writer.close()
    assert sorted(PredictionStore(tmp_path / "store").segments) == ["0.mp4", "1.mp4", "both.mp4"]


def test_a_store_of_images_has_none(tmp_path):
    with PredictionStoreWriter(tmp_path / "store", {}) as writer:
        writer.add("a.png", 0.9)
    with pytest.raises(StoreError, match="not about clips"):
        PredictionStore(tmp_path / "store").segments  # noqa: B018  read to raise


def test_clips_with_and_without_segments_do_not_mix(tmp_path):
    with PredictionStoreWriter(tmp_path / "store", {}) as writer:
        writer.add("a.mp4", 0.9, segments=_FOUND)
        with pytest.raises(StoreError, match="either all clips"):
            writer.add("b.mp4", 0.9)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([[0.9, 2, 1]], "ends before"),
        ([[0.9, -1, 1]], "before 0"),
        ([[1.2, 0, 1]], "in \\[0, 1\\]"),
        ([[0.2, 0, 1], [0.3, 0, 1]], "that fall"),
        ([[0.2, 0]], "array"),
        ([[np.nan, 0, 1]], "finite"),
    ],
)
def test_impossible_segments_are_refused(tmp_path, segments, words):
    with PredictionStoreWriter(tmp_path / "store", {}) as writer, pytest.raises(StoreError, match=words):
        writer.add("a.mp4", 0.9, segments=np.array(segments, dtype=float))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"b.mp4": []}', '{"a.mp4": [[1]], "b.mp4": []}', '{"a.mp4": 3, "b.mp4": []}']
)
def test_a_spoiled_file_is_told(store, content):
    (store / "segments.json").write_text(content)
    with pytest.raises(StoreError, match=r"segments\.json"):
        PredictionStore(store).segments  # noqa: B018  read to raise


def test_the_file_is_what_the_challenges_read(store):
    content = json.loads((store / "segments.json").read_text())
    assert content == {"a.mp4": [], "b.mp4": [[0.9, 1.0, 2.5], [0.25, 0.0, 0.48]]}
