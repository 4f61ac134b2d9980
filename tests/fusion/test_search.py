"""The search of weights: the grid, hand-made systems that are good together only, and a slow reference."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from ddl_d2.data.datasets import load_dataset
from ddl_d2.errors import FusionError
from ddl_d2.evaluation import table_from_store
from ddl_d2.fusion import (
    align_stores,
    average_maps,
    average_scores,
    check_disjoint,
    label_predictions,
    report_weights,
    search_weights,
    weight_grid,
)
from ddl_d2.fusion.ensemble import resize_map
from ddl_d2.fusion.search import MAX_CANDIDATES, localization, ranking
from ddl_d2.io.image import write_png
from tests.fusion.small_stores import write_images, write_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDL_D2_CACHE", str(tmp_path / "cache"))


def _labeled(root, stores, **options):
    return label_predictions(align_stores(stores, **options), load_dataset(root)[0], **options)


def _by_hand(folder, seed=0):
    """Two fakes and two reals of 1 x 4 pixels, and two systems.

    Scores: each ranks one fake last. f.png .9 .3, g.png .3 .9 against the reals' .5 .5 and .4 .4: AUC .5 each (of the
    four pairs a system has two right), their mean .6 .6 .5 .4: AUC 1.

    Maps: forged are the first two pixels. The first system says 200, 100 and the second 100, 200 of them: a pixel each
    (F1 2/3, IoU 1/2), the mean of 150 both. Of the third pixel the first says 140 and the second 60: their mean of 100
    is right.
    """
    half = np.array([[True, True, False, False]])
    root = write_images(
        folder / "data", {"fake/f.png": half, "fake/g.png": half, "real/r.png": None, "real/s.png": None}, (1, 4), seed
    )
    reals = {"real/r.png": 0.5, "real/s.png": 0.4}
    nothing = [[0, 0, 0, 0]]
    stores = []
    for name, scores, levels in (
        ("one", (0.9, 0.3), [[200, 100, 140, 0]]),
        ("two", (0.3, 0.9), [[100, 200, 60, 0]]),
    ):
        fakes = dict(zip(("fake/f.png", "fake/g.png"), scores, strict=True))
        maps = {**dict.fromkeys(fakes, levels), **dict.fromkeys(reals, nothing)}
        stores.append(write_store(folder / name, {**fakes, **reals}, maps))
    return _labeled(root, stores)


def test_the_grid_by_hand():
    assert weight_grid(2, 0.25) == [(0, 1), (1, 3), (1, 1), (3, 1), (1, 0)]
    assert weight_grid(3, 0.5) == [(0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0), (1, 0, 0)]
    assert weight_grid(2, 1) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(("systems", "step", "count"), [(2, 0.05, 21), (3, 0.05, 231), (4, 0.1, 286)])
def test_the_grid_is_complete(systems, step, count):
    """C(parts + S - 1, S - 1) points: C(21, 1), C(22, 2), C(13, 3). All differ, all are multiples of the step."""
    grid = weight_grid(systems, step)
    assert len(set(grid)) == len(grid) == count
    shares = np.array([np.array(weights) / sum(weights) for weights in grid]) / step
    assert np.abs(shares - shares.round()).max() < 1e-9


@pytest.mark.parametrize("step", [0, -0.1, 0.3, 2, 0.15])
def test_a_step_that_does_not_divide_one(step):
    with pytest.raises(FusionError, match="1 divided by a whole number"):
        weight_grid(2, step)


def test_impossible_grids():
    with pytest.raises(FusionError, match="at least two"):
        weight_grid(1)
    with pytest.raises(FusionError, match="makes 10626 candidates for 5 systems"):
        weight_grid(5, 0.05)
    assert MAX_CANDIDATES == 10_000


def test_two_systems_that_are_good_together(tmp_path):
    """Steps of 1/4. Of the scores only 1 : 1 ranks both fakes first: at 1 : 3 one of them has .45, below .5.

    Of the maps 1 : 1 finds both pixels and nothing else; 3 : 1 makes 175, 125, 120 and 1 : 3 125, 175, 80: one each.
    """
    result = search_weights(_by_hand(tmp_path), step=0.25)
    assert result.grid == [(0, 1), (1, 3), (1, 1), (3, 1), (1, 0)]
    assert result.auc.tolist() == [0.5, 0.75, 1, 0.75, 0.5]
    assert result.localization.num_localized == 2
    # (1, 0) finds pixels 1 and 3: TP 1, FP 1, FN 1; the others but (1, 1) TP 1, FN 1.
    assert result.localization.f1 == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3, 1 / 2])
    assert result.localization.iou == pytest.approx([1 / 2, 1 / 2, 1, 1 / 2, 1 / 3])
    assert result.weights == result.map_weights == (1, 1)


def test_of_equals_the_one_nearest_to_equal_weights(tmp_path):
    """Two systems that agree: every weight is as good."""
    root = write_images(tmp_path / "data", {"fake/f.png": np.eye(3, dtype=bool), "real/r.png": None}, (3, 3))
    scores = {"fake/f.png": 0.9, "real/r.png": 0.1}
    maps = {"fake/f.png": np.eye(3) * 255, "real/r.png": np.zeros((3, 3))}
    stores = [write_store(tmp_path / name, scores, maps) for name in "ab"]
    result = search_weights(_labeled(root, stores), step=0.2)
    assert (result.auc == 1).all()
    # Of fifths none is equal: 2 : 3 comes before 3 : 2.
    assert result.weights == result.map_weights == (2, 3)


def _random_set(folder, seed):
    """Three noisy systems on images of unlike sizes; one fake's mask is empty and one system's map is smaller."""
    rng = np.random.default_rng(seed)
    sizes = [(1, 1), (5, 9), (17, 13), (31, 8), (6, 6), (4, 11)]
    root, names, maps = folder / "data", [], [{}, {}, {}]
    for index, (height, width) in enumerate(sizes):
        mask = None if index % 3 == 2 else rng.random((height, width)) < 0.4
        if index == 4:
            mask[:] = False
        if index == 0:
            mask[:] = True
        names.append(f"{'real' if mask is None else 'fake'}/{index}.png")
        write_png(root / names[-1], rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if mask is not None:
            write_png(root / "masks" / f"{index}.png", mask)
        for system in range(3):
            small = index == 3 and system == 2
            shape = (height // 2, width // 2) if small else (height, width)
            maps[system][names[-1]] = rng.integers(0, 256, shape, dtype=np.uint8)
    scores = [{name: float(rng.random()) for name in names} for _ in range(3)]
    stores = [write_store(folder / str(system), scores[system], maps[system]) for system in range(3)]
    return root, stores


@pytest.mark.parametrize("threshold", [0.5, 0.35])
def test_against_evaluating_every_average(tmp_path, threshold):
    """What the search counts is what evaluating each written average would say."""
    root, stores = _random_set(tmp_path, seed=3)
    rows, _ = load_dataset(root)
    systems = align_stores(stores)
    labeled = label_predictions(systems, rows)
    grid = weight_grid(3, 0.25)
    auc = ranking(labeled, grid)
    found = localization(labeled, grid, threshold=threshold)
    assert found.num_localized == 3
    for index, weights in enumerate(grid):
        maps = {}
        for row in rows:
            name = row["image_id"]
            levels = [store.read_map(name) for store in stores]
            if name == "fake/3.png":  # 15 x 4 to 31 x 8: the only one that differs
                levels[2] = resize_map(levels[2], 31, 8)
            maps[name] = average_maps(levels, weights)
        scores = dict(zip(systems.ids, average_scores(systems.scores, weights).tolist(), strict=True))
        fused = write_store(tmp_path / f"fused{index}", scores, maps)
        metrics = table_from_store(fused, rows, threshold=threshold).metrics()
        expected = (metrics["auc"], metrics["f1"], metrics["iou"])
        assert (auc[index], found.f1[index], found.iou[index]) == pytest.approx(expected, abs=1e-12)


def test_workers_change_no_number(tmp_path):
    root, stores = _random_set(tmp_path, seed=4)
    labeled = _labeled(root, stores)
    one, three = (search_weights(labeled, step=0.25, workers=workers) for workers in (1, 3))
    assert one.localization.f1.tolist() == three.localization.f1.tolist()
    assert one.localization.iou.tolist() == three.localization.iou.tolist()
    assert (one.weights, one.map_weights) == (three.weights, three.map_weights)


@pytest.mark.parametrize("metric", ["f1", "iou", "final"])
def test_the_metric_of_the_maps(tmp_path, metric):
    root, stores = _random_set(tmp_path, seed=5)
    result = search_weights(_labeled(root, stores), step=0.1, map_metric=metric)
    found = result.localization
    value = {"f1": found.f1, "iou": found.iou, "final": found.f1 + found.iou}[metric]
    assert value[result.grid.index(result.map_weights)] == pytest.approx(value.max(), abs=1e-12)
    with pytest.raises(FusionError, match="one of f1, iou, final, not 'auc'"):
        search_weights(_labeled(root, stores), map_metric="auc")


def test_each_map_is_read_once(tmp_path, monkeypatch):
    labeled = _by_hand(tmp_path)
    reads = []
    for store in labeled.systems.stores:
        plain = store.read_map
        monkeypatch.setattr(store, "read_map", lambda name, plain=plain: reads.append(name) or plain(name))
    search_weights(labeled, step=0.05)
    assert sorted(reads) == ["fake/f.png"] * 2 + ["fake/g.png"] * 2  # of 21 candidates; reals have no M1


def test_without_maps_only_scores_are_searched(tmp_path):
    half = np.array([[True, False]])
    root = write_images(tmp_path / "data", {"fake/f.png": half, "real/r.png": None}, (1, 2))
    with_map = write_store(
        tmp_path / "a", {"fake/f.png": 0.2, "real/r.png": 0.4}, {"fake/f.png": half * 255, "real/r.png": half * 0}
    )
    without = write_store(tmp_path / "b", {"fake/f.png": 0.9, "real/r.png": 0.1})
    labeled = _labeled(root, [with_map, without])
    result = search_weights(labeled, step=0.5)
    assert (result.localization, result.map_weights) == (None, None)
    # (0, 1) .9 > .1, (1, 1) .55 > .25, (1, 0) .2 < .4.
    assert result.auc.tolist() == [1, 1, 0]
    assert result.weights == (1, 1)
    with pytest.raises(FusionError, match=r"no forgery maps in .*b"):
        localization(labeled, [(1, 1)])


def test_the_report_on_another_set(tmp_path):
    """Searched: 1 : 1. On the other set the first system alone is right, the second wrong, and the mean right for f."""
    tuned = _by_hand(tmp_path / "tuned")
    result = search_weights(tuned, step=0.25)
    half = np.array([[True, True, False, False]])
    root = write_images(tmp_path / "other", {"fake/f.png": half, "real/r.png": None}, (1, 4), seed=9)
    maps = {"fake/f.png": [[255, 255, 0, 0]], "real/r.png": [[0, 0, 0, 0]]}
    good = write_store(tmp_path / "good", {"fake/f.png": 0.9, "real/r.png": 0.1}, maps)
    bad = write_store(
        tmp_path / "bad", {"fake/f.png": 0.2, "real/r.png": 0.7}, {**maps, "fake/f.png": [[0, 255, 0, 0]]}
    )
    report = report_weights(result, tuned, _labeled(root, [good, bad]))
    assert list(report) == ["1", "2", "equal", "searched"]
    assert report["1"] == {"auc": 1, "f1": 1, "iou": 1, "final": 1}
    # The second finds one of two pixels. The mean of the first is 127.5: not above, so it is the same.
    assert report["2"] == pytest.approx({"auc": 0, "f1": 2 / 3, "iou": 1 / 2, "final": (2 / 3 + 1 / 2) / 3})
    assert report["searched"] == report["equal"]
    assert report["equal"] == pytest.approx({"auc": 1, "f1": 2 / 3, "iou": 1 / 2, "final": (1 + 2 / 3 + 1 / 2) / 3})


def test_never_on_the_set_that_was_searched(tmp_path):
    tuned = _by_hand(tmp_path)
    result = search_weights(tuned, step=0.5)
    with pytest.raises(FusionError, match=r"4 of the 4 images .* \(fake/f\.png, .*too good"):
        report_weights(result, tuned, tuned)


def test_what_counts_as_the_same_image(tmp_path):
    """Ids are relative to a folder: the same id may be another image, and the same image have another id."""
    tuned = _by_hand(tmp_path / "a")
    data = tmp_path / "a" / "data"
    other = _by_hand(tmp_path / "b", seed=1)  # equal ids and sizes, other pixels
    check_disjoint(tuned, other)
    image, path = data / "real" / "r.png", tmp_path / "b/data/real/r.png"
    path.write_bytes(image.read_bytes()[:-1] + b"?")  # nor do an equal length and time make it the same
    shutil.copystat(image, path)
    check_disjoint(tuned, other)
    shutil.copy(image, path)
    with pytest.raises(FusionError, match=r"1 of the 4 images .*\(real/r\.png\)"):
        check_disjoint(tuned, other)
    (tmp_path / "b/data/real/r.png").unlink()
    os.link(data / "real" / "s.png", tmp_path / "b/data/real/r.png")
    with pytest.raises(FusionError, match=r"1 of the 4 images .*\(real/r\.png\)"):
        check_disjoint(tuned, other)


def test_other_systems_cannot_be_reported_on(tmp_path):
    tuned = _by_hand(tmp_path)
    result = search_weights(tuned, step=0.5)
    root, stores = _random_set(tmp_path / "other", seed=6)
    with pytest.raises(FusionError, match="searched for 2 systems, not 3"):
        report_weights(result, tuned, _labeled(root, stores))


def test_a_data_set_that_does_not_fit(tmp_path):
    labeled = _by_hand(tmp_path)
    systems, rows = labeled.systems, list(labeled.rows)
    with pytest.raises(FusionError, match="1 predicted images are not in the dataset: fake/f.png"):
        label_predictions(systems, [row for row in rows if row["image_id"] != "fake/f.png"])
    more = [*rows, {**rows[0], "image_id": "real/t.png"}]
    with pytest.raises(FusionError, match="1 images of the dataset have no prediction: real/t.png"):
        label_predictions(systems, more)
    assert len(label_predictions(systems, more[1:], intersection=True)) == 3
    with pytest.raises(FusionError, match="4 images have no label"):
        label_predictions(systems, [{key: row[key] for key in ("image_id", "file_name")} for row in rows])
    with pytest.raises(FusionError, match="both real and fake .* of 4, 4 are fake"):
        label_predictions(systems, [{**row, "is_fake": 1} for row in rows])
    known = align_stores(
        [
            write_store(tmp_path / name, {"fake/f.png": 0.5, "real/r.png": 0.5}, labels={"fake/f.png": 0})
            for name in "ab"
        ]
    )
    with pytest.raises(FusionError, match=r"fake/f\.png: the dataset's label is 1, the prediction stores' 0"):
        label_predictions(known, rows, intersection=True)


def test_a_map_of_another_size_than_its_image(tmp_path):
    root = write_images(tmp_path / "data", {"fake/f.png": np.eye(3, dtype=bool), "real/r.png": None}, (3, 3))
    maps = {"fake/f.png": np.zeros((2, 3)), "real/r.png": np.zeros((3, 3))}
    stores = [write_store(tmp_path / name, {"fake/f.png": 0.9, "real/r.png": 0.1}, maps) for name in "ab"]
    with pytest.raises(FusionError, match=r"fake/f\.png: the forgery map is \(2, 3\), the image \(3, 3\)"):
        search_weights(_labeled(root, stores))
