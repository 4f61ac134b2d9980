"""Fragility: a verdict that a delivery flips is inconclusive, and the weakest delivery is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ddl_d2
from ddl_d2.data.transforms.corruptions import DELIVERIES
from ddl_d2.inference.deliveries import fragility_of, with_fragility
from ddl_d2.inference.fragility import Delivered, Fragility
from ddl_d2.inference.model import Model
from tests.grain import Grain


@pytest.fixture(scope="module")
def cfg():
    return ddl_d2.load_config("quickstart/mask2former_efficientnet_lite0", ["MODEL.DEVICE", "cpu"])


@pytest.fixture
def model(cfg):
    return Model(cfg, Grain())


def _image(grain: float) -> np.ndarray:
    image = np.full((120, 100, 3), 90, np.uint8)
    image[30:80, 20:70, 0] = 200
    noise = np.random.default_rng(0).normal(0, grain, (120, 100, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_grain_that_blur_takes_away_makes_the_verdict_inconclusive(model):
    (prediction,) = with_fragility(model, model.predict_many([_image(12.0)]))
    fragility = prediction.fragility
    assert fragility.verdict == "fake"
    assert prediction.verdict == "inconclusive"
    flipped = {one.delivery for one in fragility.flips}
    assert {"blur of 1 pixels", "shrinking to x0.5 and back"} <= flipped
    assert "JPEG of quality 90" not in flipped
    assert fragility.weakest.delivery in flipped
    farthest = max(abs(one.score - fragility.score) for one in fragility.flips)
    assert abs(fragility.weakest.score - fragility.score) == farthest
    assert fragility.weakest.delivery in fragility.reason
    row = json.loads(json.dumps(prediction.to_dict()))
    assert row["verdict"] == "inconclusive"
    assert row["fragility"]["verdict_as_it_is"] == "fake"
    assert [one["delivery"] for one in row["fragility"]["deliveries"]] == [one.name for one in DELIVERIES]


def test_a_smooth_image_stays_real_under_all(model):
    (prediction,) = with_fragility(model, model.predict_many([_image(0.0)]))
    assert prediction.verdict == "real"
    assert prediction.fragility.holds
    assert '"real" holds under 12 deliveries' in prediction.fragility.reason


def test_maps_are_compared_where_they_lie(model):
    """The red square is found in the crop, between the bars of a screenshot and in the small copy of a messenger."""
    fragility = fragility_of(model, model.predict(_image(0.0)))
    assert min(one.map_iou for one in fragility.delivered) > 0.9


def test_twelve_images_go_in_batches(model):
    prediction = model.predict(_image(0.0))
    model.predictor.batches.clear()
    first = fragility_of(model, prediction, batch_size=5)
    assert model.predictor.batches == [5, 5, 2]
    assert fragility_of(model, prediction, batch_size=12) == first


def test_what_could_not_be_read_or_has_no_face_is_left_alone(model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"none")
    (prediction,) = with_fragility(model, model.predict_many([tmp_path / "a.jpg"]))
    assert prediction.error is not None
    assert prediction.fragility is None
    faceless = model.predict(_image(0.0))
    faceless.output["has_face"] = False
    again = type(faceless)(image=faceless.image, output=faceless.output)
    assert next(with_fragility(model, [again])).verdict == "no face found"
    assert again.fragility is None


def _delivered(verdict: str, score: float | None) -> Delivered:
    return Delivered(f"{verdict} {score}", score, verdict, 1.0)


def test_the_weakest_by_hand():
    """.30 flips to .60 and .90: .90 is farther. Where nothing flips it is the score that moved most, .05."""
    flipping = Fragility("real", 0.3, (_delivered("fake", 0.6), _delivered("fake", 0.9), _delivered("real", 0.01)))
    assert flipping.weakest.score == 0.9
    assert len(flipping.flips) == 2
    steady = Fragility(
        "real", 0.3, (_delivered("real", 0.05), _delivered("real", 0.4), _delivered("no face found", None))
    )
    assert steady.holds
    assert steady.weakest.score == 0.05
    blind = Fragility("real", 0.3, (_delivered("no face found", None),))
    assert blind.weakest is None
    assert blind.reason == "no face is found after any of 1 deliveries"
