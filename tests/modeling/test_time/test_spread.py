"""TEST.UNCERTAINTY: how far views of an image differ, without a change of what is predicted."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.data.transforms.build import build_spread_views
from ddl_d2.errors import ConfigError
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.modeling.test_time.build import on_views
from ddl_d2.modeling.test_time.faces import OnFaceCrops
from ddl_d2.modeling.test_time.views import OnViews
from tests.modeling.test_time.test_views import _Leftmost, _row


def test_spread_of_an_image_and_its_mirror_image_by_hand():
    row = _row()
    row["image"][0, 0, 0] = 51  # the corner: 0.2, and 1 mirrored
    (output,) = OnViews(_Leftmost(), flip=False, spread=True)([row])
    assert output["fake_score"] == pytest.approx(0.2), "the mirrored view does not count"
    assert output["score_spread"] == pytest.approx(0.4)  # of 0.2 and 1: the mean is 0.6
    # The slope from 1 to 0 and its mirror image: 1 and 0 in the first column, 0.8 and 0.2 in the second, 0.6 and 0.4.
    spread = torch.tensor([0.5, 0.3, 0.1, 0.1, 0.3, 0.5])
    assert torch.allclose(output["reliability_map"][1], 1 - 2 * spread, atol=1e-6)
    assert torch.allclose(output["forgery_map"][1], torch.linspace(1, 0, 6))


def test_views_of_the_spread_change_neither_score_nor_map():
    more = {"spread_views": [_row((8, 12), 102)["image"]], "views": [_row((2, 3), 204)["image"]]}
    plain = {key: value for key, value in more.items() if key == "views"}
    model = _Leftmost()
    (output,) = OnViews(model, spread=True)([_row() | more])
    assert model.seen == [(4, 6)] * 2 + [(2, 3)] * 2 + [(8, 12)] * 2
    (expected,) = OnViews(_Leftmost())([_row() | plain])
    assert output["fake_score"] == expected["fake_score"]
    assert torch.equal(output["forgery_map"], expected["forgery_map"])
    # Scores 1, 1, 0.8, 0.8, 0.4, 0.4.
    assert output["score_spread"] == pytest.approx(np.std([1, 0.8, 0.4]))
    assert "score_spread" not in expected


def test_equal_views_are_wholly_reliable():
    class _Same(_Leftmost):
        def forward(self, rows):
            outputs = super().forward(rows)
            return [{**one, "forgery_map": torch.full_like(one["forgery_map"], 0.3)} for one in outputs]

    (output,) = OnViews(_Same(), spread=True)([_row()])
    assert torch.allclose(output["reliability_map"], torch.ones(4, 6), atol=1e-6)


def test_a_system_that_only_detects_has_a_spread_of_its_score():
    (output,) = OnViews(_Leftmost(maps=False), spread=True)([_row()])
    assert output["score_spread"] == 0
    assert "reliability_map" not in output


def test_heat_maps_are_means_over_the_views_that_count():
    views = OnViews(_Leftmost(), flip=False, spread=True)
    row = _row() | {"spread_views": [_row((8, 12))["image"]]}
    maps = [torch.full((4, 6), float(number)) for number in range(len(views.windows(row)))]
    assert torch.equal(views.merge_maps(row, maps), maps[0])


def test_faces_paste_it_and_keep_the_least_reliable():
    crop = {"image": _row()["image"], "spread_views": [_row(red=0)["image"]], "window": (1, 2, 7, 6)}
    model = OnFaceCrops(OnViews(_Leftmost(), spread=True))
    (output,) = model([{"crops": [crop], "height": 8, "width": 9}])
    assert output["score_spread"] == pytest.approx(0.5)  # of 1, 1, 0, 0
    whole = output["reliability_map"]
    assert whole.shape == (8, 9)
    assert float(whole[0, 0]) == 1
    assert float(whole[2:6, 1:7].max()) < 1


def test_the_predictor_shows_them_and_predicts_as_without(tiny_cfg, rng):
    image = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    keys = ["TEST.UNCERTAINTY.ENABLED", "True", "TEST.UNCERTAINTY.SCALES", "[0.5]", "MODEL.WEIGHTS", ""]
    with_spread, plain = tiny_cfg(*keys), tiny_cfg()
    torch.manual_seed(0)
    model = build_model(plain).eval()
    from ddl_d2.data.transforms.resize import ResizeToFit

    resize = ResizeToFit(plain.INPUT.MIN_SIZE_TEST, plain.INPUT.MAX_SIZE_TEST)
    wrapped = on_views(with_spread, model)
    found = ForgeryPredictor(wrapped, resize, spread_views=build_spread_views(with_spread))(image)
    expected = ForgeryPredictor(on_views(plain, model), resize)(image)
    assert found["fake_score"] == pytest.approx(expected["fake_score"], abs=1e-6)
    torch.testing.assert_close(found["forgery_map"], expected["forgery_map"], atol=1e-5, rtol=0)
    assert found["score_spread"] > 0
    assert found["reliability_map"].shape == (70, 90)
    assert 0 <= float(found["reliability_map"].min()) < 1


def test_wrong_scales(tiny_cfg):
    with pytest.raises(ConfigError, match="above 0"):
        build_spread_views(tiny_cfg("TEST.UNCERTAINTY.ENABLED", "True", "TEST.UNCERTAINTY.SCALES", "[0.0]"))
