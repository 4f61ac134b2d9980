"""The fast ways of resizing against the plain one, on shapes nobody would choose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ddl_d2.data.transforms.antialias import resize_pixels, resize_plane, resize_window

CASES = 400


def random_sizes(rng):
    """A source and a target of 1 to 80 pixels a side; now and then equal on one side, or one pixel longer."""
    source, target = rng.integers(1, 81, 2), rng.integers(1, 81, 2)
    if rng.random() < 0.3:
        side = int(rng.integers(2))
        target[side] = source[side] + int(rng.integers(2))
    return tuple(source.tolist()), tuple(target.tolist())


def test_pixels_equal_pytorchs_plain_call(rng):
    for _ in range(50):
        source, target = random_sizes(rng)
        image = rng.integers(0, 256, (*source, 3), dtype=np.uint8)
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        plain = torch.nn.functional.interpolate(batch, size=target, mode="bilinear", antialias=True)
        resized = resize_pixels(image, target)
        assert resized.flags.c_contiguous
        np.testing.assert_array_equal(resized, plain[0].permute(1, 2, 0).numpy(), err_msg=f"{source} -> {target}")


def test_a_window_is_a_part_of_the_whole(rng):
    pixels = wrong = 0
    for _ in range(CASES):
        source, target = random_sizes(rng)
        image = rng.integers(0, 256, (*source, 3), dtype=np.uint8)
        height, width = (int(rng.integers(1, side + 1)) for side in target)
        top, left = int(rng.integers(target[0] - height + 1)), int(rng.integers(target[1] - width + 1))
        part = resize_window(image, target, (top, left, height, width))
        whole = resize_pixels(image, target)[top : top + height, left : left + width]
        assert part.shape == whole.shape, (source, target)
        distance = np.abs(part.astype(int) - whole)
        assert distance.max() <= 1, (source, target, top, left, height, width)
        pixels, wrong = pixels + part.size, wrong + int((distance > 0).sum())
    assert wrong <= pixels * 1e-4


def test_a_large_image_and_its_window(rng):
    image = rng.integers(0, 256, (300, 417, 3), dtype=np.uint8)
    for target in ((129, 180), (299, 416), (301, 418), (700, 700)):
        top, left = target[0] // 3, target[1] // 2
        part = resize_window(image, target, (top, left, 60, 50))
        whole = resize_pixels(image, target)[top : top + 60, left : left + 50]
        assert np.abs(part.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("share", [0, 0.003, 0.2, 1])
def test_a_plane_is_resized_as_an_image(rng, share):
    for _ in range(CASES // 4):
        source, target = random_sizes(rng)
        plane = (rng.random(source) < share) * rng.integers(0, 256, source).astype(np.uint8)
        resized = resize_plane(plane, target)
        assert resized.dtype == np.uint8
        expected = resize_pixels(plane[:, :, None], target)[:, :, 0]
        np.testing.assert_array_equal(resized, expected, err_msg=f"{source} -> {target}")


def test_a_plane_equals_pillows_to_one_gray_level(rng):
    plane = np.zeros((90, 131), np.uint8)
    plane[20:50, 60:] = 255
    for target in ((45, 64), (33, 200), (200, 33)):
        expected = np.asarray(Image.fromarray(plane).resize(target[::-1], Image.Resampling.BILINEAR))
        assert np.abs(resize_plane(plane, target).astype(int) - expected).max() <= 1
