"""Images: one stated outcome for every kind of pixel, and refusals."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile

from ddl_d2.errors import ImageReadError
from ddl_d2.io.image import decode_image, jpeg_bytes, read_image, read_image_size, read_map, read_mask
from tests.io.hostile_files import ANIMATED, SEEDS, encoded, png_chunk, tiff


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_rgb_comes_back(tmp_path, rgb, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    read = read_image(save(tmp_path / f"a.{suffix}", rgb, **options))
    np.testing.assert_array_equal(read, rgb)
    assert read.flags.c_contiguous
    assert read.flags.writeable


def test_the_name_does_not_decide(tmp_path, rgb):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.jpg", rgb, format="PNG")), rgb)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_gray_keeps_the_high_byte(tmp_path, suffix):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    read = read_image(save(tmp_path / f"a.{suffix}", values))
    np.testing.assert_array_equal(read, np.repeat([[[0], [0], [1]], [[128], [255], [255]]], 3, axis=2))


def test_sixteen_bit_big_endian_tiff(tmp_path):
    path = tmp_path / "a.tif"
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 4)]
    entries = b"".join(
        struct.pack(">HHI", *tag[:3]) + (struct.pack(">HH", tag[3], 0) if tag[1] == 3 else struct.pack(">I", tag[3]))
        for tag in tags
    )
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + b"\x12\x34\xff\x00")
    assert read_image(path)[0, :, 0].tolist() == [0x12, 0xFF]


def test_sixteen_bit_rgb_png_keeps_the_high_byte(tmp_path):
    import cv2

    values = np.array([[[0x1234, 0xABCD, 0x00FF]]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values[:, :, ::-1])
    assert read_image(tmp_path / "a.png").tolist() == [[[0x12, 0xAB, 0x00]]]


def test_alpha_is_dropped_not_composited(tmp_path, rgb):
    transparent = np.concatenate([rgb, np.zeros((5, 9, 1), np.uint8)], axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", transparent)), rgb)


def test_gray_with_alpha_palette_and_one_bit(tmp_path, rgb):
    gray = rgb[:, :, 0]
    path = tmp_path / "a.png"
    Image.merge("LA", [Image.fromarray(gray), Image.new("L", (9, 5), 3)]).save(path)
    np.testing.assert_array_equal(read_image(path), np.repeat(gray[:, :, None], 3, axis=2))

    palette = Image.fromarray(gray % 2)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.save(path, transparency=0)
    np.testing.assert_array_equal(read_image(path), np.array([[10, 20, 30], [200, 100, 0]], np.uint8)[gray % 2])

    bits = gray > 99
    np.testing.assert_array_equal(read_image(save(path, bits))[:, :, 2], bits * np.uint8(255))


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (9, 5), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg")[0, 0].astype(int)
    assert red < 10
    assert min(green, blue) > 245


@pytest.mark.parametrize("values", [np.ones((3, 4), np.float32), np.ones((3, 4), np.int32)])
def test_float_and_32_bit_are_refused(tmp_path, values):
    with pytest.raises(ImageReadError, match="refused"):
        read_image(save(tmp_path / "a.tiff", values))


def test_lab_is_refused(tmp_path, rgb):
    save(tmp_path / "a.tiff", rgb)
    data = (tmp_path / "a.tiff").read_bytes()
    Image.frombytes("LAB", (9, 5), rgb.tobytes()).save(tmp_path / "a.tiff")
    assert data != (tmp_path / "a.tiff").read_bytes()
    with pytest.raises(ImageReadError, match="LAB"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_animation_is_its_first_frame(tmp_path, rng, fmt):
    ANIMATED[fmt](rng, tmp_path / "a")
    with Image.open(tmp_path / "a") as image:
        assert image.n_frames == 30
        first = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), first)


# A 2 x 3 image numbered 0..5, as the eight values of EXIF orientation want it seen.
UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpeg", "16.png"])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.arange(6).reshape(2, 3) * 40
    path = tmp_path / f"a.{suffix}"
    expected = np.array(UPRIGHT[orientation]) * 40
    if suffix == "16.png":
        Image.fromarray((stored * 257).astype(np.uint16)).save(path, exif=exif)
    else:
        # Blocks of 8 so that JPEG keeps them apart.
        stored = np.kron(stored, np.ones((8, 8), int))
        expected = np.kron(expected, np.ones((8, 8), int))
        image = Image.fromarray(stored.astype(np.uint8))
        (image.convert("RGB") if suffix == "webp" else image).save(path, exif=exif, lossless=True)
    read = read_image(path)
    np.testing.assert_allclose(read[:, :, 0].astype(int), expected, atol=2 if suffix == "jpeg" else 0)
    assert read_image_size(path) == read.shape[:2] == read_mask(path).shape


PNG_TURNS = {
    "eXIf behind the image": lambda exif: (b"eXIf", exif[6:]),
    "XMP": lambda _: (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
}


@pytest.mark.parametrize("kind", PNG_TURNS)
@pytest.mark.parametrize("behind", [True, False])
def test_size_of_a_png_that_is_turned(tmp_path, rgb, kind, behind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(tmp_path / "a.png", rgb).read_bytes()
    spot = data.index(b"IEND" if behind else b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:spot] + png_chunk(*PNG_TURNS[kind](exif.tobytes())) + data[spot:])
    assert read_image_size(tmp_path / "a.png") == read_image(tmp_path / "a.png").shape[:2] == (9, 5)


@pytest.mark.parametrize("end", [-12, -3, 60, 45])
def test_size_of_a_png_that_ends_early(tmp_path, rgb, end):
    save(tmp_path / "b.png", rgb)
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:end])
    assert read_image_size(tmp_path / "a.png") == (5, 9)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_size_decodes_nothing(tmp_path, rng, fmt, monkeypatch):
    (tmp_path / "a").write_bytes(encoded(rng, fmt))
    for name in ("PIL.ImageFile.ImageFile.load", "PIL.WebPImagePlugin.WebPImageFile.load"):
        monkeypatch.setattr(name, lambda _: pytest.fail("decoded"))
    assert read_image_size(tmp_path / "a") == (43, 61)


# Refusals.


def test_pixel_cap_is_read_from_the_header(tmp_path, rgb):
    path = save(tmp_path / "a.png", rgb)
    assert read_image(path, max_pixels=45).shape == (5, 9, 3)
    for read in (read_image, read_image_size, read_mask, read_map):
        with pytest.raises(ImageReadError, match="9 x 5 pixels, more than the limit of 44"):
            read(path, max_pixels=44)


@pytest.mark.parametrize(
    ("name", "reason"), [("none.png", "no such file"), ("", "not a regular file"), ("empty.png", "empty")]
)
def test_reasons(tmp_path, name, reason):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageReadError, match=reason) as caught:
        read_image(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.reason) == (caught.value.path, caught.value.reason)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageReadError, match="regular"):
        read_image(tmp_path / "a.png")


def test_truncated_is_refused_whatever_another_library_set(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(rng, "JPEG", size=(200, 200))
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageReadError):
        read_image(tmp_path / "a.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1)])
def test_extreme_shapes(tmp_path, rng, size):
    rgb = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgb)), rgb)


def test_large_images_are_read_in_strips(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("ddl_d2.io.image_modes._STRIP_PIXELS", 64)
    rgba = rng.integers(0, 256, (37, 20, 4), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), rgba[:, :, :3])


def test_a_tiff_with_half_its_strips(tmp_path):
    """20 rows are promised, the one strip holds 10."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 10), (279, 4, 1, 80)]
    (tmp_path / "a.tif").write_bytes(tiff(tags).ljust(200, b"\0") + bytes(160))
    with pytest.raises(ImageReadError, match="a part of its size"):
        read_image(tmp_path / "a.tif")


def test_bytes_of_every_seed_are_sound(tmp_path, rng):
    for name, make in SEEDS.items():
        (tmp_path / "a").write_bytes(make(rng))
        with Image.open(io.BytesIO(make(rng))) as image:
            width, height = image.size
        assert read_image(tmp_path / "a").shape == (height, width, 3), name


def test_a_jpeg_of_too_many_pixels_is_refused():
    with pytest.raises(ValueError, match="65,500"):
        jpeg_bytes(np.zeros((1, 70_000, 3), np.uint8), 75)


# 108 megapixels are more than Pillow warns about (89), 180 more than it reads at all.


@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "a.jpg", "a.bmp"])
@pytest.mark.filterwarnings("error")
def test_the_key_alone_says_how_many_pixels_may_be_read(tmp_path, name, monkeypatch):
    save_kind = {"lzw.tif": {"compression": "tiff_lzw"}}.get(name, {})
    Image.fromarray(np.full((60, 90), 200, np.uint8)).save(tmp_path / name, **save_kind)
    for theirs in (100, 4000):  # Pillow would refuse, or warn
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", theirs)
        for read in (read_image, read_mask, read_map):
            assert read(tmp_path / name, max_pixels=5400).shape[:2] == (60, 90)
        assert read_image_size(tmp_path / name, max_pixels=5400) == (60, 90)
        assert decode_image((tmp_path / name).read_bytes(), max_pixels=5400).min() > 190
        assert theirs == Image.MAX_IMAGE_PIXELS
        with pytest.raises(ImageReadError, match=r"90 x 60 pixels, more than the limit of 5399 \(INPUT\.MAX_PIXELS"):
            read_image(tmp_path / name, max_pixels=5399)


@pytest.mark.filterwarnings("error")
def test_a_photograph_of_108_megapixels(tmp_path):
    assert Image.MAX_IMAGE_PIXELS < 12_000 * 9_000
    path = tmp_path / "a.png"
    Image.new("1", (12_000, 9_000)).save(path)
    assert read_image_size(path, max_pixels=120_000_000) == (9_000, 12_000)
    assert not read_mask(path, max_pixels=120_000_000).any()
    with pytest.raises(ImageReadError, match="12000 x 9000 pixels, more than the limit of 64000000"):
        read_image(path)
