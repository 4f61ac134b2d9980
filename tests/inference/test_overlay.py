import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from ddl_d2.inference.overlay import FORGED, GREEN, caption_of, draw_prediction, tint_forged
from ddl_d2.inference.summary import summarize


def prediction_for(shape, score=0.9, with_instances=True):
    """A round forged spot in the upper left part of the image."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    spot = np.exp(-((((x + 0.5) / width - 0.4) / 0.2) ** 2 + (((y + 0.5) / height - 0.4) / 0.2) ** 2))
    prediction = {"fake_score": score, "forgery_map": torch.tensor(spot, dtype=torch.float32)}
    if with_instances:
        instances = Instances((height, width))
        instances.pred_masks = torch.tensor(spot > 0.5)[None].repeat(3, 1, 1)
        instances.scores = torch.tensor([0.2, 0.9, 0.7])
        instances.pred_classes = torch.zeros(3, dtype=torch.int64)
        prediction["instances"] = instances
    return prediction


SHAPES = [(1, 1), (1, 700), (700, 1), (5, 7), (200, 200), (199, 303), (64, 3000), (3000, 64), (3000, 4000)]


@pytest.mark.parametrize("shape", SHAPES)
def test_awkward_shapes(shape):
    image = np.full((*shape, 3), 120, np.uint8)
    figure = draw_prediction(image, prediction_for(shape), 0.5, title="a rather long file name " * 8)
    assert figure.dtype == np.uint8
    assert figure.ndim == 3
    # text keeps its size, so that it can be read: neither a stamp nor a poster
    assert 560 <= figure.shape[1] <= 2600
    assert 150 <= figure.shape[0] <= 2600


def test_panels_show_image_and_forgery():
    image = np.full((300, 300, 3), (10, 200, 10), np.uint8)
    figure = draw_prediction(image, prediction_for((300, 300), with_instances=False))
    scale = 320 / 300
    x, y = 8 + int(120 * scale), 38 + 26 + int(120 * scale)  # the spot's center in the first panel
    assert figure[y, x].tolist() == [10, 200, 10]
    middle = figure[y, x + 328].astype(int)  # the second panel, one panel and a gap further
    assert middle[0] > 60
    assert middle[1] < 180
    assert figure[y, x + 656].astype(int).sum() > 350  # the map is bright there


def test_verdict_colors_and_threshold():
    image = np.zeros((100, 100, 3), np.uint8)
    fake = draw_prediction(image, prediction_for((100, 100), 0.7), 0.5)
    real = draw_prediction(image, prediction_for((100, 100), 0.7), 0.8)
    assert fake[0, 0, 0] > fake[0, 0, 1]
    assert real[0, 0, 1] > real[0, 0, 0]


def test_nothing_forged_and_everything_forged():
    image = np.full((50, 60, 3), 90, np.uint8)
    for value in (0.0, 1.0):
        prediction = {"fake_score": value, "forgery_map": torch.full((50, 60), value)}
        assert draw_prediction(image, prediction).size


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="forgery map"):
        draw_prediction(np.zeros((10, 12, 3), np.uint8), prediction_for((12, 10)))


def test_drawing_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    prediction = prediction_for((90, 80))
    before, map_before = image.copy(), prediction["forgery_map"].clone()
    draw_prediction(image, prediction)
    tint_forged(image, np.ones((90, 80), bool))
    np.testing.assert_array_equal(image, before)
    assert torch.equal(prediction["forgery_map"], map_before)


def test_summary_by_hand():
    values = np.zeros((10, 20), np.float32)
    values[2:6, 3:8] = 0.75  # 20 pixels
    values[7:10, 10:20] = 1.0  # 30 pixels
    values[0, 19] = 0.9  # 1 pixel: too small to list
    values[9, 0] = 0.5  # not above the threshold
    summary = summarize({"fake_score": 0.5, "forgery_map": values}, 0.5, 0.5)
    assert summary.verdict == "real"  # not above the threshold
    assert summary.forged_share == pytest.approx(51 / 200)
    assert [(r.box, r.area, r.mean_probability) for r in summary.regions] == [
        ((10, 7, 20, 10), 30, 1.0),
        ((3, 2, 8, 6), 20, 0.75),
    ]
    assert summary.as_dict()["regions"][0]["box"] == [10, 7, 20, 10]


def test_only_of_a_fake_pixels_are_called_forged():
    values = {"forgery_map": np.full((10, 20), 0.9, np.float32)}
    said = [caption_of(summarize(values | {"fake_score": score})) for score in (0.8, 0.2)]
    assert said == [
        "FAKE   score 0.800 (threshold 0.5)   forged 100.0 % of the pixels",
        "REAL   score 0.200 (threshold 0.5)   map above 0.5 in 100.0 % of the pixels",
    ]


def test_without_a_face_the_image_is_shown_alone():
    """A model of faces says nothing then: neither forged pixels nor the color of a verdict."""
    image = np.full((400, 400, 3), 90, np.uint8)
    prediction = {"fake_score": 0.9, "forgery_map": np.ones((400, 400), np.float32), "has_face": False}
    drawn = draw_prediction(image, prediction)
    assert drawn.shape[1] < 600 < draw_prediction(image, prediction | {"has_face": True}).shape[1]
    assert not any((drawn == color).all(-1).any() for color in (FORGED, GREEN))
