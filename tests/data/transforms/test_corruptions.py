"""Corruptions: named, repeatable, with masks that follow, and a share of them that training never sees."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.load import list_configs, read_config
from ddl_d2.data.transforms.build import build_augmentations
from ddl_d2.data.transforms.corruptions import CORRUPTIONS, DELIVERIES, LEVELS, TEST_ONLY, Delivery
from ddl_d2.data.transforms.degradations import RandomDelivery
from ddl_d2.errors import ConfigError

SIZE = (96, 81)


@pytest.fixture
def image(rng) -> np.ndarray:
    """Smooth colors with a little grain, as a photograph has."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    base = np.stack([90 + x, 60 + y, 140 + 0.5 * x - 0.4 * y], axis=-1)
    return np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_repeatable_and_gets_worse(name, image):
    distances = []
    for level in LEVELS:
        transform = Delivery(name, level).transform("a.png", image.shape[:2])
        corrupted = transform.apply_image(image)
        again = Delivery(name, level).transform("a.png", image.shape[:2]).apply_image(image)
        assert corrupted.dtype == np.uint8
        assert corrupted.shape[2] == 3
        np.testing.assert_array_equal(corrupted, again)
        if corrupted.shape == image.shape:
            distances.append(_distance(corrupted, image))
    assert distances == sorted(distances)
    assert not distances or distances[0] > 0
    assert len(distances) == (0 if name in ("crop", "screenshot", "messenger") else 5)


@pytest.mark.parametrize("name", ["noise", "poisson", "motion_blur", "crop"])
def test_what_is_drawn_differs_between_images_and_seeds(name, image):
    def of(image_id: str, seed: int = 0) -> np.ndarray:
        return Delivery(name, 5).transform(image_id, image.shape[:2], seed).apply_image(image)

    assert not np.array_equal(of("a.png"), of("b.png"))
    assert not np.array_equal(of("a.png"), of("a.png", seed=1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_mask_lies_where_its_pixels_went(name, image):
    """A white square on a dark image is its own mask: where it is bright afterwards, the mask must be forged."""
    dark = np.full((120, 100, 3), 30, np.uint8)
    dark[40:90, 30:80] = 220
    mask = (dark[..., 0] > 128).astype(np.uint8)
    transform = Delivery(name, 3).transform("a.png", mask.shape)
    moved, seen = transform.apply_segmentation(mask), transform.apply_image(dark)
    assert moved.shape == seen.shape[:2]
    gray = seen.mean(axis=-1)
    bright = gray > (gray.max() + gray.min()) / 2
    assert (moved.astype(bool) & bright).sum() / (moved.astype(bool) | bright).sum() > 0.9
    back = transform.inverse().apply_segmentation(moved)
    assert back.shape == mask.shape
    whole = transform.inverse().apply_segmentation(np.ones_like(moved)).astype(bool)
    assert (back.astype(bool) != mask.astype(bool))[whole].mean() < 0.02
    assert not back[~whole].any()


def test_a_crop_by_hand():
    """A share of .1 of 120 x 100 leaves 108 x 90; what was cut off comes back as authentic."""
    transform = Delivery("crop", 2).transform("a.png", (120, 100))
    mask = np.ones((120, 100), np.uint8)
    assert transform.apply_segmentation(mask).shape == (108, 90)
    assert transform.inverse().apply_segmentation(np.ones((108, 90), np.uint8)).sum() == 108 * 90


def test_a_screenshot_by_hand():
    """x.85 of 120 x 100 is 102 x 85, between two bars of 8 % of 102, rounded: 8."""
    transform = Delivery("screenshot", 2).transform("a.png", (120, 100))
    seen = transform.apply_image(np.full((120, 100, 3), 200, np.uint8))
    assert seen.shape == (118, 85, 3)
    assert _distance(seen[:6], np.full((6, 85, 3), 24)) < 3
    assert not transform.apply_segmentation(np.ones((120, 100), np.uint8))[:8].any()


def test_twelve_deliveries_have_words():
    assert len(DELIVERIES) == len({delivery.name for delivery in DELIVERIES}) == 12
    assert DELIVERIES[3].name == "JPEG of quality 30"
    assert sum(delivery.corruption in TEST_ONLY for delivery in DELIVERIES) == 3
    with pytest.raises(ValueError, match="the level is one of 1 to 5, not 6"):
        Delivery("jpeg", 6).transform("a", SIZE)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    return cfg


def test_no_recipe_trains_on_what_is_kept_for_testing(cfg):
    assert set(CORRUPTIONS) >= TEST_ONLY
    for name in [None, *list_configs()]:
        found = cfg if name is None else read_config(name, ["MODEL.DEVICE", "cpu"])
        assert TEST_ONLY.isdisjoint(found.INPUT.AUGMENT.DELIVERIES), name


@pytest.mark.parametrize("probability", [0.0, 0.5])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["jpeg", "webp"], "webp: kept for testing, and never trained on"),
        (["rain"], "not rain"),
        ([], "deliveries need names"),
    ],
)
def test_a_training_that_would_does_not_start(cfg, names, message, probability):
    cfg.INPUT.AUGMENT.DELIVERY_PROB, cfg.INPUT.AUGMENT.DELIVERIES = probability, names
    with pytest.raises(ConfigError, match=message):
        build_augmentations(cfg, True)


def test_deliveries_come_first_and_take_the_mask_along(cfg, image):
    cfg.INPUT.AUGMENT.DELIVERY_PROB, cfg.INPUT.AUGMENT.DELIVERIES = 1.0, ["crop"]
    first = build_augmentations(cfg, True)[0]
    assert isinstance(first, RandomDelivery)
    image[..., 0] = 0
    image[20:60, 20:60, 0] = 255
    np.random.seed(0)
    shapes = set()
    for _ in range(10):
        given = T.AugInput(image, sem_seg=(image[..., 0] > 0).astype(np.uint8))
        first(given)
        np.testing.assert_array_equal(given.sem_seg, given.image[..., 0] > 0)
        shapes.add(given.image.shape)
    assert len(shapes) > 1
