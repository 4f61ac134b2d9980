"""Masks: fifteen kinds, one outcome each; and the PNG files that are written."""

import os

import numpy as np
import pytest
from PIL import Image

from ddl_d2.errors import ImageReadError
from ddl_d2.io.image import inspect_mask, read_image, read_map, read_mask, write_png

HALF = np.repeat([[False] * 3 + [True] * 3], 4, axis=0)


def gray(low, high, dtype=np.uint8):
    return np.where(HALF, high, low).astype(dtype)


def as_rgba(path):
    opaque = np.dstack([gray(0, 255)] * 3 + [np.full(HALF.shape, 9, np.uint8)])
    Image.fromarray(opaque).save(path)


def as_alpha(path):
    Image.fromarray(np.dstack([gray(255, 255)] * 3 + [gray(0, 255)])).save(path)


def as_palette(path):
    image = Image.fromarray(gray(0, 1))
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(path)


RAMP = np.arange(256, dtype=np.uint8)[None]
RED = np.dstack([gray(0, 255), gray(0, 0), gray(0, 0)])

# kind -> (the file's pixels, the mask, the notes)
MASKS = {
    "0 and 255": (gray(0, 255), HALF, ()),
    "0 and 1": (gray(0, 1), HALF, ("coded_01",)),
    "rgb": (np.dstack([gray(0, 255)] * 3), HALF, ()),
    "red on black": (RED, HALF, ("color",)),
    "rgba": (as_rgba, HALF, ("alpha",)),
    "in the alpha channel": (as_alpha, HALF | True, ("alpha", "in_alpha")),
    "palette": (as_palette, HALF, ("color", "soft")),
    "1-bit": (HALF, HALF, ()),
    "16-bit": (gray(0, 65535, np.uint16), HALF, ("sixteen_bit",)),
    "8-bit values in 16": (gray(0, 255, np.uint16), HALF, ("sixteen_bit",)),
    "0 and 1 in 16": (gray(0, 1, np.uint16), HALF, ("sixteen_bit", "coded_01")),
    "gray ramp": (RAMP, RAMP >= 128, ("soft",)),
    "inverted": (gray(255, 0), ~HALF, ()),
    "all 0": (gray(0, 0), HALF & False, ()),
    "all 255": (gray(255, 255), HALF | True, ()),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks(tmp_path, kind):
    pixels, expected, notes = MASKS[kind]
    if callable(pixels):
        pixels(tmp_path / "mask.png")
    else:
        Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask, found = inspect_mask(tmp_path / "mask.png")
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), expected)
    assert found == notes


def test_missing_and_empty_mask_files(tmp_path):
    (tmp_path / "zero.png").touch()
    for name in ("zero.png", "missing.png"):
        with pytest.raises(ImageReadError):
            read_mask(tmp_path / name)


def test_noise_of_a_jpeg_mask_is_not_forged(tmp_path):
    Image.fromarray(gray(0, 1)).save(tmp_path / "m.jpg", quality=100)
    assert not read_mask(tmp_path / "m.jpg").any()
    Image.fromarray(np.kron(gray(0, 255), np.ones((8, 8), np.uint8))).save(tmp_path / "m.jpg", quality=90)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), np.kron(HALF, np.ones((8, 8), bool)))


# Writing.


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_png_round_trip(tmp_path, rng, dtype):
    array = rng.integers(0, 2 if dtype is np.bool_ else 256, (7, 11)).astype(dtype)
    write_png(tmp_path / "new" / "folder" / "a.png", array)
    read = read_mask if dtype is np.bool_ else read_map
    np.testing.assert_array_equal(read(tmp_path / "new" / "folder" / "a.png"), array)
    with Image.open(tmp_path / "new" / "folder" / "a.png") as image:
        assert image.mode == ("1" if dtype is np.bool_ else "L")


def test_png_of_an_image(tmp_path, rgb):
    write_png(tmp_path / "a.png", rgb[:, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb[:, ::-1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("array", [np.zeros((3, 3)), np.zeros((3, 3, 4), np.uint8), np.zeros((0, 3), np.uint8)])
def test_other_arrays_are_not_written(tmp_path, array):
    with pytest.raises(ValueError, match="write_png takes"):
        write_png(tmp_path / "a.png", array)


def test_a_failed_write_leaves_the_old_file(tmp_path, rgb, monkeypatch):
    write_png(tmp_path / "a.png", rgb)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        write_png(tmp_path / "a.png", rgb[::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
