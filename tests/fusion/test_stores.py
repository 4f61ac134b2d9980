"""Stores side by side: one list of images, one opinion on labels, maps of one size."""

from __future__ import annotations

import pytest

from ddl_d2.errors import FusionError
from ddl_d2.fusion import align_stores, read_maps
from tests.fusion.small_stores import write_store


def test_one_order_and_every_known_label(tmp_path):
    first = write_store(tmp_path / "a", {"x": 0.1, "b/y": 0.2, "z": 0.3}, labels={"x": 0})
    second = write_store(tmp_path / "b", {"z": 0.6, "x": 0.4, "b/y": 0.5}, labels={"x": 0, "b/y": 1})
    systems = align_stores([first, second])
    assert systems.ids == ["b/y", "x", "z"]
    assert systems.scores.tolist() == [[0.2, 0.1, 0.3], [0.5, 0.4, 0.6]]
    assert systems.labels.tolist() == [1, 0, -1]


def test_unlike_lists(tmp_path):
    first = write_store(tmp_path / "a", dict.fromkeys("abcdefgh", 0.1))
    second = write_store(tmp_path / "b", {"h": 0.3, "i": 0.4})
    third = write_store(tmp_path / "c", dict.fromkeys("abcdefgh", 0.5))
    with pytest.raises(FusionError) as refused:
        align_stores([first, second, third])
    text = str(refused.value)
    assert f"{first.root} has 7 that {second.root} lacks (a, b, c, d, e and 2 more)" in text
    assert f"{second.root} has 1 that {first.root} lacks (i)" in text
    assert "only the 1 that all of them have" in text
    assert str(third.root) not in text
    assert "\n" not in text
    common = align_stores([first, second, third], intersection=True)
    assert (common.ids, common.scores.tolist()) == (["h"], [[0.1], [0.3], [0.5]])
    other = write_store(tmp_path / "d", {"i": 0.5})
    with pytest.raises(FusionError, match="no image in common"):
        align_stores([first, other], intersection=True)


def test_labels_that_contradict_each_other(tmp_path):
    stores = [
        write_store(tmp_path / name, {"x": 0.1, "y": 0.2, "z": 0.3}, labels=labels)
        for name, labels in (("a", {"x": 1, "y": 0}), ("b", {"x": 1}), ("c", {"y": 1, "z": 0}))
    ]
    align_stores(stores[:2])
    with pytest.raises(FusionError, match="labels of 1 images .* first y: .*a real, .*c fake"):
        align_stores(stores)


def test_one_store_is_not_enough(tmp_path):
    with pytest.raises(FusionError, match="at least two"):
        align_stores([write_store(tmp_path / "a", {"x": 0.1})])


def test_maps_take_the_first_ones_size(tmp_path):
    first = write_store(tmp_path / "a", {"x": 0.1}, {"x": [[10, 20, 30, 40]]})
    second = write_store(tmp_path / "b", {"x": 0.1}, {"x": [[0, 255]]})
    maps, resized = read_maps([first, second, first], "x")
    assert [forgery_map.tolist() for forgery_map in maps] == [
        [[10, 20, 30, 40]],
        [[0, 64, 191, 255]],
        [[10, 20, 30, 40]],
    ]
    assert resized == 1
    maps, resized = read_maps([second, first], "x")
    assert ([forgery_map.tolist() for forgery_map in maps], resized) == ([[[0, 255]], [[15, 35]]], 1)
