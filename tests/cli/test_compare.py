"""`ddl-d2 compare`: the figures of `ddl-d2 evaluate`, written in every format, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.cli import compare, evaluate
from tests.fusion.small_stores import write_images, write_store

SIZE = (6, 5)


@pytest.fixture
def masks(rng) -> dict[str, np.ndarray | None]:
    """Eight fakes and eight reals."""
    fakes = {f"fake/f{number}.png": rng.random(SIZE) < 0.4 for number in range(8)}
    return {**fakes, **dict.fromkeys((f"real/r{number}.png" for number in range(8)), None)}


@pytest.fixture
def data(masks, tmp_path) -> Path:
    write_images(tmp_path / "data/valid", masks, SIZE)
    return tmp_path / "data"


@pytest.fixture
def stores(masks, tmp_path, rng) -> list[str]:
    """Three systems, the last of which gives no maps."""
    found = []
    for name in ("runs/first", "runs/second", "other/scores"):
        scores = {key: float(rng.beta(3, 2) if mask is not None else rng.beta(2, 3)) for key, mask in masks.items()}
        maps = {key: rng.integers(0, 256, SIZE) for key in masks}
        write_store(tmp_path / name, scores, None if name.startswith("other") else maps)
        found.append(str(tmp_path / name))
    return found


def _run(*words) -> None:
    assert compare.main([str(word) for word in words]) == 0


def _fails(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(word) for word in words])
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.filterwarnings("ignore::ddl_d2.evaluation.functional.UndefinedMetricWarning")
def test_every_figure_is_that_of_evaluate_to_the_last_digit(stores, data, tmp_path, capsys):
    output = tmp_path / "found.json"
    common = ["--dataset-root", str(data), "--split", "valid", "--threshold", "0.4"]
    _run(*stores, *common, "--output", output)
    content = json.loads(output.read_text())
    assert list(content["systems"]) == ["first", "second", "scores"]
    assert (content["unit"], content["num_units"], content["resamples"]) == ("images", 16, 1000)
    for store in stores:
        assert evaluate.main(["--predictions", store, *common]) == 0
        expected = json.loads((Path(store) / "metrics.json").read_text())
        assert (expected.pop("threshold"), expected.pop("empty_score")) == (0.4, "skip")
        found = content["systems"][Path(store).name]
        assert {key: one["value"] if isinstance(one, dict) else one for key, one in found.items()} == expected
        assert found["auc"]["low"] <= found["auc"]["value"] <= found["auc"]["high"]
    assert content["systems"]["first"]["f1"]["low"] < content["systems"]["first"]["f1"]["high"]
    assert content["systems"]["scores"]["f1"]["value"] is None
    assert content["differences"]["second"]["auc"]["method"] == "DeLong"
    assert content["differences"]["second"]["iou"]["method"] == "bootstrap"
    assert "second minus first, on the same images" in capsys.readouterr().out


def test_runs_and_workers_do_not_change_a_byte(stores, data, tmp_path):
    outputs = [tmp_path / f"{number}.csv" for number in range(3)]
    for output, options in zip(outputs, (["--workers", 1], ["--workers", 4], ["--seed", 1]), strict=True):
        _run(*stores[:2], "--dataset-root", data, "--output", output, "--resamples", 100, *options)
    first, second, other = (output.read_bytes() for output in outputs)
    assert first == second
    assert first != other


def test_groups_are_drawn_as_a_whole(stores, data, masks, tmp_path):
    groups = tmp_path / "people.csv"
    people = [f"{image_id},person{number % 5}" for number, image_id in enumerate(masks)]
    groups.write_text("\n".join(["image_id,group", *people]))
    output = tmp_path / "found.json"
    _run(*stores[:2], "--dataset-root", data, "--groups", groups, "--output", output)
    content = json.loads(output.read_text())
    assert (content["unit"], content["num_units"]) == ("groups", 5)
    assert content["differences"]["second"]["auc"]["method"] == "bootstrap"


def test_intersection_is_what_all_stores_have(masks, stores, data, tmp_path):
    write_store(tmp_path / "part", dict.fromkeys(list(masks)[3:], 0.5))
    output = tmp_path / "found.json"
    _run(stores[2], tmp_path / "part", "--dataset-root", data, "--intersection", "--output", output)
    systems = json.loads(output.read_text())["systems"]
    assert [one["num_images"] for one in systems.values()] == [13, 13]


def test_stores_of_one_name_are_named_by_their_paths(tmp_path):
    paths = [tmp_path / "a/store", tmp_path / "b/store", tmp_path / "b/other"]
    assert list(compare.system_names(paths)) == [str(paths[0]), str(paths[1]), "other"]


def test_bad_inputs(stores, data, tmp_path, capsys):
    common = ("--dataset-root", data)
    assert "--dataset-root is needed" in _fails(capsys, *stores)
    assert "first is named twice" in _fails(capsys, stores[0], stores[0], *common)
    assert "no such folder" in _fails(capsys, stores[0], tmp_path / "no", *common)
    assert "x.pdf: the comparison is written as" in _fails(capsys, *stores, *common, "--output", "x.pdf")
    assert "must be 100 or more" in _fails(capsys, *stores, *common, "--resamples", "99")
    assert "groups.csv: No such file" in _fails(capsys, *stores, *common, "--groups", tmp_path / "groups.csv")
    write_store(tmp_path / "part", {"fake/f0.png": 0.5})
    assert "15 of 16 images of the dataset were not scored" in _fails(capsys, tmp_path / "part", *common)


@pytest.mark.filterwarnings("ignore::ddl_d2.evaluation.functional.UndefinedMetricWarning")
def test_facts_break_the_figures_down(stores, data, masks, tmp_path, capsys):
    facts = tmp_path / "facts.csv"
    lines = [f"{name},{'web' if index % 4 < 2 else 'film'}" for index, name in enumerate(masks)]
    facts.write_text("\n".join(["image_id,source", *lines]) + "\n")
    output = tmp_path / "found.json"
    _run(*stores[:2], "--dataset-root", data, "--split", "valid", "--facts", facts, "--output", output)
    found = json.loads(output.read_text())["breakdowns"]["source"]
    assert found["groups"]["web"]["num_fake"] == found["groups"]["film"]["num_real"] == 4
    values = [group["systems"]["first"]["auc"]["value"] for group in found["groups"].values()]
    assert found["mean_auc"]["first"]["value"] == pytest.approx(np.mean(values))
    out = capsys.readouterr().out
    assert "By source, worst AUC first; AUC is against the real images of the same group" in out
    assert "False alarms by source, worst first" in out
    facts.write_text("image_id\n")
    assert "the first line must be image_id and names" in _fails(
        capsys, *stores, "--dataset-root", data, "--facts", facts
    )
