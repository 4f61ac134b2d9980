import itertools
import os
import subprocess
import sys

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from ddl_d2.errors import ConfigError
from ddl_d2.inference.gradcam import predict_with_heat_map
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.modeling.test_time.build import on_tiles, wrapped_for_testing
from ddl_d2.modeling.test_time.tiles import OnTiles, cuts, tile_score
from tests.conftest import ROOT


class RednessModel(nn.Module):
    """The map is the image's red; keeps the sizes that it saw together."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batched_inputs):
        self.seen.append([tuple(row["image"].shape[-2:]) for row in batched_inputs])
        assert all((row["height"], row["width"]) == tuple(row["image"].shape[-2:]) for row in batched_inputs)
        maps = [row["image"][0].float() / 255 for row in batched_inputs]
        return [{"fake_score": float(m.max()), "forgery_map": m, "instances": Instances(m.shape)} for m in maps]


class ConstantModel(nn.Module):
    """A constant map for each tile, from a list."""

    def __init__(self, values):
        super().__init__()
        self.values = iter(values)

    def forward(self, batched_inputs):
        values = [next(self.values) for _ in batched_inputs]
        maps = [torch.full(row["image"].shape[-2:], v) for row, v in zip(batched_inputs, values, strict=True)]
        return [{"fake_score": v, "forgery_map": m} for v, m in zip(values, maps, strict=True)]


def make_image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def row_of(image):
    return {"image": image, "height": image.shape[1], "width": image.shape[2]}


def on_red(**options):
    return OnTiles(RednessModel(), **{"size": 32, "overlap": 0.25, **options}).eval()


def test_where_a_side_is_cut():
    # Two overlap by pixel 3 and two by pixel 6, where the roofs 1 2 2 1 are 1 and 1: half each.
    assert [(a, b, w.tolist()) for a, b, w in cuts(10, 4, 1)] == [
        (0, 4, [1, 1, 1, 0.5]),
        (3, 7, [0.5, 1, 1, 0.5]),
        (6, 10, [0.5, 1, 1, 1]),
    ]
    # In pixels 2 and 3 the roofs are 2 and 1, then 1 and 2.
    first, second = (w.tolist() for _, _, w in cuts(6, 4, 2))
    assert first == pytest.approx([1, 1, 2 / 3, 1 / 3])
    assert second == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert [(a, b, w.tolist()) for a, b, w in cuts(3, 4, 1)] == [(0, 3, [1, 1, 1])]


@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize("overlap", [0, 1, 5, 16])
def test_every_pixel_counts_once(size, overlap):
    for length in (*range(size - 2, 4 * size, 3), 1237):
        tiles = cuts(length, size, overlap)
        total = torch.zeros(length)
        for start, end, weights in tiles:
            assert end - start == min(size, length)
            assert weights.min() > 0
            total[start:end] += weights
        assert (tiles[0][0], tiles[-1][1]) == (0, length)
        assert all(left[1] - right[0] >= overlap for left, right in itertools.pairwise(tiles))
        assert len(tiles) == 1 or (len(tiles) - 1) * (size - overlap) + overlap < length  # one fewer would not do
        torch.testing.assert_close(total, torch.ones(length), atol=2e-7, rtol=0)


@pytest.mark.parametrize("size", [(33, 32), (40, 100), (97, 20), (129, 131)])
def test_the_map_is_put_together_where_it_was_cut(size):
    image = make_image(*size)
    (output,) = on_red()([row_of(image)])
    torch.testing.assert_close(output["forgery_map"], image[0].float() / 255, atol=2e-7, rtol=0)
    assert output["fake_score"] == image[0].max() / 255


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_stays_constant(value):
    model = OnTiles(ConstantModel(itertools.repeat(value)), size=32, overlap=0.3).eval()
    (output,) = model([row_of(make_image(101, 75))])
    torch.testing.assert_close(output["forgery_map"], torch.full((101, 75), value), atol=2e-7, rtol=0)
    assert 0 <= output["forgery_map"].min() <= output["forgery_map"].max() <= 1


def test_there_is_no_seam():
    # Tiles 0..32 and 16..48: over the 16 pixels they share, the map falls from 1 to 0 in steps of 1/17.
    model = OnTiles(ConstantModel([1.0, 0.0]), size=32, overlap=0.5).eval()
    (output,) = model([row_of(make_image(20, 48))])
    assert output["forgery_map"][:, :16].eq(1).all()
    assert output["forgery_map"][:, 32:].eq(0).all()
    steps = -output["forgery_map"][0, 15:33].diff()
    torch.testing.assert_close(steps, torch.full((17,), 1 / 17))


def test_tiles_of_one_size_and_so_many_at_once():
    model = on_red(batch_size=4)
    image = make_image(70, 60)
    (output,) = model([row_of(image)])
    # ceil((70 - 8) / 24) = 3 rows, ceil((60 - 8) / 24) = 3 columns
    assert model.model.seen == [[(32, 32)] * 4, [(32, 32)] * 4, [(32, 32)]]
    (alone,) = on_red(batch_size=1)([row_of(image)])
    assert torch.equal(output["forgery_map"], alone["forgery_map"])


def test_what_is_no_larger_than_a_tile_passes_through():
    model = on_red()
    rows = [row_of(make_image(32, 20)), row_of(make_image(32, 32))]
    outputs = model(rows)
    assert model.model.seen == [[(32, 20), (32, 32)]]
    expected = model.model(rows)
    assert all(torch.equal(a["forgery_map"], b["forgery_map"]) for a, b in zip(outputs, expected, strict=True))
    # Beside one that is cut, too, and in the order of the rows.
    small = make_image(30, 31, seed=1)
    outputs = model([row_of(make_image(40, 20)), row_of(small), row_of(make_image(20, 40))])
    assert [tuple(output["forgery_map"].shape) for output in outputs] == [(40, 20), (30, 31), (20, 40)]
    assert torch.equal(outputs[1]["forgery_map"], small[0].float() / 255)


def test_a_system_is_untouched_bit_for_bit(tiny_cfg, make_row):
    torch.manual_seed(0)
    system = build_model(tiny_cfg()).eval()
    tiled = OnTiles(system, size=96)
    row = make_row(0, size=(64, 96))
    with torch.no_grad():
        (ours,), (theirs,) = tiled([row]), system([row])
    assert ours["fake_score"] == theirs["fake_score"]
    assert torch.equal(ours["forgery_map"], theirs["forgery_map"])
    assert tiled.state_dict().keys() == system.state_dict().keys()
    assert {"loss_det", "loss_ce"} <= tiled.train()([make_row(0, size=(64, 128))]).keys()  # training is not cut


def test_a_system_on_tiles(tiny_cfg, make_row):
    torch.manual_seed(0)
    cfg = tiny_cfg("TEST.TILE.SIZE", "64", "TEST.TILE.OVERLAP", "0.25", "TEST.TILE.BATCH_SIZE", "3")
    model = wrapped_for_testing(cfg, build_model(cfg).eval())
    row = make_row(0, size=(70, 150)) | {"height": 35, "width": 75}
    with torch.no_grad():
        (output,) = model([row])
        # 2 x 3 tiles (ceil((150 - 16) / 48) = 3), from rows 0 and 6, columns 0, 43 and 86
        tiles = [row["image"][:, y : y + 64, x : x + 64] for y in (0, 6) for x in (0, 43, 86)]
        alone = [model.model([row_of(tile)])[0] for tile in tiles]
    assert output["fake_score"] == pytest.approx(max(part["fake_score"] for part in alone), abs=1e-6)
    assert output["forgery_map"].shape == (35, 75)
    assert output["instances"].image_size == (35, 75)
    assert (output["instances"].pred_masks.any(0) == (output["forgery_map"] > 0.5)).all()
    # The first corner is the first tile's own: at half the size, (a + b + c + d) / 4.
    torch.testing.assert_close(output["forgery_map"][0, 0], alone[0]["forgery_map"][:2, :2].mean())


def test_the_score_of_tiles():
    scores = [0.1, 0.9, *[0.2] * 18]
    assert tile_score(scores, "max") == 0.9
    assert tile_score(scores, "mean") == pytest.approx((0.1 + 0.9 + 18 * 0.2) / 20)
    assert tile_score(scores, "top_tiles") == pytest.approx((0.9 + 0.2) / 2)  # a tenth of 20
    assert tile_score([0.3], "top_tiles") == 0.3


@pytest.mark.parametrize(("rule", "expected"), [("max", 1.0), ("mean", 0.5), ("top_tiles", 1.0)])
def test_the_score_of_an_image(rule, expected):
    model = OnTiles(ConstantModel([1.0, 0.0]), size=32, overlap=0.5, score=rule).eval()
    assert model([row_of(make_image(20, 48))])[0]["fake_score"] == expected


def test_the_score_of_the_blended_map():
    # 1 on 16 columns, 0 on 16, and a slope of mean one half between: one half in all.
    model = OnTiles(ConstantModel([1.0, 0.0]), size=32, overlap=0.5, score="map", image_score="mean").eval()
    assert model([row_of(make_image(20, 48))])[0]["fake_score"] == pytest.approx(0.5)


def test_a_system_that_only_detects(tiny_cfg, make_row):
    cfg = tiny_cfg("MODEL.LOCALIZATION.ENABLED", "False", "TEST.TILE.SIZE", "64")
    system = build_model(cfg).eval()
    (output,) = on_tiles(cfg, system)([make_row(0, size=(64, 96))])
    assert output.keys() == {"fake_score", "instances"}
    cfg.TEST.TILE.SCORE = "map"
    with pytest.raises(ConfigError, match="only detects"):
        on_tiles(cfg, system)([make_row(0, size=(64, 96))])


def test_a_heat_map_over_tiles(tiny_cfg, make_row):
    torch.manual_seed(0)
    system = build_model(tiny_cfg()).eval()
    tiled = OnTiles(system, size=64, overlap=0.25)
    row = make_row(0, size=(64, 112)) | {"height": 32, "width": 56}
    output = predict_with_heat_map(tiled, row)
    assert output["heat_map"].shape == output["forgery_map"].shape == (32, 56)
    assert 0 <= output["heat_map"].min() <= output["heat_map"].max() <= 1
    with torch.no_grad():
        (plain,) = tiled([row])
    torch.testing.assert_close(output["forgery_map"], plain["forgery_map"], atol=1e-6, rtol=0)
    assert output["fake_score"] == pytest.approx(plain["fake_score"], abs=1e-6)
    small = make_row(0, size=(64, 64))
    assert torch.equal(
        predict_with_heat_map(tiled, small)["heat_map"], predict_with_heat_map(system, small)["heat_map"]
    )


def test_merged_maps_are_blended_at_the_original_size():
    maps = iter([torch.ones(20, 32), torch.zeros(20, 32)])
    merged = on_red(overlap=0.5).merge_maps(row_of(make_image(20, 48)) | {"height": 10, "width": 24}, maps)
    assert merged.shape == (10, 24)
    assert merged[:, :8].eq(1).all()
    assert merged[:, 16:].eq(0).all()
    torch.testing.assert_close(merged[0, 8], torch.tensor(15.5 / 17))  # of 16/17 and 15/17


def test_the_config_decides(tiny_cfg):
    cfg, system = tiny_cfg(), RednessModel()
    assert wrapped_for_testing(cfg, system) is system
    cfg.TEST.TILE.SIZE = 64
    tiled = wrapped_for_testing(cfg, system.eval())
    assert isinstance(tiled, OnTiles)
    assert not tiled.training
    assert wrapped_for_testing(cfg, tiled) is tiled


def test_a_checkpoint_is_shown_tiles(tiny_cfg, tmp_path):
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", "0", "TEST.TILE.SIZE", "64")
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    predictor = ForgeryPredictor.from_cfg(cfg)
    calls = []
    predictor.model.model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0][0]["image"].shape))
    output = predictor(make_image(70, 100).permute(1, 2, 0).numpy())
    assert calls == [(3, 64, 64)] * 4  # 2 rows, 2 columns
    assert output["forgery_map"].shape == (70, 100)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"size": 31}, "SIZE"),
        ({"size": -64}, "SIZE"),
        ({"batch_size": 0}, "BATCH_SIZE"),
        ({"overlap": 0.6}, "OVERLAP"),
        ({"overlap": -0.1}, "OVERLAP"),
        ({"score": "median"}, "SCORE"),
    ],
)
def test_impossible_tiles_are_refused(options, key):
    with pytest.raises(ConfigError, match=f"TEST.TILE.{key} is"):
        on_red(**options)


def test_impossible_tiles_are_refused_with_the_config(tiny_cfg):
    with pytest.raises(ConfigError, match="TEST.TILE.OVERLAP is 0.75"):
        tiny_cfg("TEST.TILE.SIZE", "64", "TEST.TILE.OVERLAP", "0.75")


def test_memory_stays_bounded():
    """A short run of trials/memory.py, in a process that is small to begin with."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "trials/memory.py"), "--short"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ", 0 failed" in done.stdout
