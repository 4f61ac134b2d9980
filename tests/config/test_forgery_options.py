import dataclasses

import pytest

from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"face_prob": -0.1},
        {"whole_face_prob": 1.01},
        {"mosaic_prob": True},
        {"parts": ("ear",)},
        {"parts": ()},
        {"part_count": (2, 1)},
        {"part_count": (0, 1)},
        {"drag_length": (0.1, 0.5)},  # a map that folds
        {"drag_radius": (0.1,)},
        {"eyes_area": (0.0, 1.0)},
        {"scale": 1.0},
        {"raster": (8, 16)},
        {"ratios": ()},
        {"ratios": (0.0, 1.0)},
        {"frequency": ("ring",)},
        {"downscale": (1.0,)},
        {"jpeg_quality": (0, 10)},
        {"appearance_weights": (0.0, 0.0, 0.0)},
        {"appearance_weights": (1.0, -1.0, 1.0)},
        {"appearance_weights": (1.0, 1.0)},
    ],
    ids=str,
)
def test_wrong_values_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ForgeryOptions(**wrong)


def test_lists_of_a_config_file_become_tuples():
    options = ForgeryOptions(drag_radius=[0.1, 0.2], parts=["nose"], ratios=[1.0])
    assert options.drag_radius == (0.1, 0.2)
    assert options.parts == ("nose",)
    assert hash(options) == hash(ForgeryOptions(drag_radius=(0.1, 0.2), parts=("nose",), ratios=(1.0,)))


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ForgeryOptions().face_prob = 1.0


@pytest.mark.parametrize(
    "wrong", [{"jpeg_prob": 1.5}, {"hue": (3.0, 1.0)}, {"jpeg_quality": (0, 50)}, {"downscale": (0.5, 2.0)}]
)
def test_post_options_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PostOptions(**wrong)
