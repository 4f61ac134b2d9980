import io
import os
import pickle
import struct

import numpy as np
import pytest
from hostile_files import ANIMATED, encoded, tiff
from PIL import Image, ImageFile

from ddl_d2.data.image_io import (
    ImageReadError,
    inspect_mask,
    iter_video_frames,
    read_image,
    read_image_size,
    read_map,
    read_mask,
    write_png,
)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# Pictures: one stated outcome for every kind of pixel.


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (5, 9, 3), dtype=np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
def test_sixteen_bit_grey_keeps_the_high_byte(tmp_path, suffix):
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


def test_grey_with_alpha_palette_and_one_bit(tmp_path, rgb):
    grey = rgb[:, :, 0]
    path = tmp_path / "a.png"
    Image.merge("LA", [Image.fromarray(grey), Image.new("L", (9, 5), 3)]).save(path)
    np.testing.assert_array_equal(read_image(path), np.repeat(grey[:, :, None], 3, axis=2))

    palette = Image.fromarray(grey % 2)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.save(path, transparency=0)
    np.testing.assert_array_equal(read_image(path), np.array([[10, 20, 30], [200, 100, 0]], np.uint8)[grey % 2])

    bits = grey > 99
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


# A 2 x 3 picture numbered 0..5, as the eight values of EXIF orientation want it seen.
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


def test_large_pictures_are_read_in_strips(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("ddl_d2.data.image_io._STRIP_PIXELS", 64)
    rgba = rng.integers(0, 256, (37, 20, 4), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), rgba[:, :, :3])


def test_a_tiff_with_half_its_strips(tmp_path):
    """20 rows are promised, the one strip holds 10."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 10), (279, 4, 1, 80)]
    (tmp_path / "a.tif").write_bytes(tiff(tags).ljust(200, b"\0") + bytes(160))
    with pytest.raises(ImageReadError, match="a part of its size"):
        read_image(tmp_path / "a.tif")


# Masks: fourteen kinds, one outcome each.

HALF = np.repeat([[False] * 3 + [True] * 3], 4, axis=0)


def grey(low, high, dtype=np.uint8):
    return np.where(HALF, high, low).astype(dtype)


def as_rgba(path):
    opaque = np.dstack([grey(0, 255)] * 3 + [np.full(HALF.shape, 9, np.uint8)])
    Image.fromarray(opaque).save(path)


def as_palette(path):
    image = Image.fromarray(grey(0, 1))
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(path)


RAMP = np.arange(256, dtype=np.uint8)[None]
RED = np.dstack([grey(0, 255), grey(0, 0), grey(0, 0)])

# kind -> (the file's pixels, the mask, the notes)
MASKS = {
    "0 and 255": (grey(0, 255), HALF, ()),
    "0 and 1": (grey(0, 1), HALF, ("coded_01",)),
    "rgb": (np.dstack([grey(0, 255)] * 3), HALF, ()),
    "red on black": (RED, HALF, ("colour",)),
    "rgba": (as_rgba, HALF, ("alpha",)),
    "palette": (as_palette, HALF, ("colour", "soft")),
    "1-bit": (HALF, HALF, ()),
    "16-bit": (grey(0, 65535, np.uint16), HALF, ("sixteen_bit",)),
    "8-bit values in 16": (grey(0, 255, np.uint16), HALF, ("sixteen_bit",)),
    "0 and 1 in 16": (grey(0, 1, np.uint16), HALF, ("sixteen_bit", "coded_01")),
    "grey ramp": (RAMP, RAMP >= 128, ("soft",)),
    "inverted": (grey(255, 0), ~HALF, ()),
    "all 0": (grey(0, 0), HALF & False, ()),
    "all 255": (grey(255, 255), HALF | True, ()),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks(tmp_path, kind):
    pixels, expected, notes = MASKS[kind]
    if callable(pixels):
        pixels(tmp_path / "mask.png")
    else:
        save(tmp_path / "mask.png", pixels)
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
    Image.fromarray(grey(0, 1)).save(tmp_path / "m.jpg", quality=100)
    assert not read_mask(tmp_path / "m.jpg").any()
    Image.fromarray(np.kron(grey(0, 255), np.ones((8, 8), np.uint8))).save(tmp_path / "m.jpg", quality=90)
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


def test_png_of_a_picture(tmp_path, rgb):
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


# Video.


def make_video(path, frames=5, size=(32, 48), audio_only=False):
    import av

    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("aac", rate=44100)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 44100
            container.mux([*stream.encode(silence), *stream.encode(None)])
            return path
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.zeros((*size, 3), np.uint8)
            picture[:, : size[1] // 2] = min(40 * index + 40, 255)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


def turn_video(path, degrees):
    """Set the display matrix of an mp4's track (fixed point 16.16, its rows a b u, c d v, x y w)."""
    data = bytearray(path.read_bytes())
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one)}[degrees]
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def test_video_frames(tmp_path):
    frames = list(iter_video_frames(make_video(tmp_path / "a.mp4")))
    assert [index for index, _, _ in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([time for _, time, _ in frames], np.arange(5) / 25, atol=1e-6)
    for index, _, frame in frames:
        assert frame.shape == (32, 48, 3)
        assert frame.dtype == np.uint8
        assert abs(int(frame[16, 8, 0]) - (40 * index + 40)) < 8
        assert frame[16, 40, 0] < 8


def test_video_turned_by_its_display_matrix(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=1)
    turn_video(path, 90)  # to be shown a quarter turn clockwise: the bright left half comes out on top
    (_, _, frame), *_ = iter_video_frames(path)
    assert frame.shape == (48, 32, 3)
    assert frame[8, 16, 0] > 30 > frame[40, 16, 0]
    turn_video(path, 180)
    (_, _, frame), *_ = iter_video_frames(path)
    assert frame.shape == (32, 48, 3)
    assert frame[16, 40, 0] > 30 > frame[16, 8, 0]


def test_video_refusals(tmp_path, rgb):
    with pytest.raises(ImageReadError, match="no video stream"):
        list(iter_video_frames(make_video(tmp_path / "sound.mp4", audio_only=True)))
    whole = make_video(tmp_path / "a.mp4", frames=20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    for name in ("cut.mp4", "noise.mp4", "empty.mp4", "none.mp4"):
        with pytest.raises(ImageReadError):
            list(iter_video_frames(tmp_path / name))
    with pytest.raises(ImageReadError, match="more than the limit"):
        list(iter_video_frames(tmp_path / "a.mp4", max_pixels=1000))


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat"])
def test_a_playlist_opens_nothing(tmp_path, name):
    make_video(tmp_path / "secret.mp4")
    playlist = {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    }[name]
    (tmp_path / name).write_text(playlist)
    with pytest.raises(ImageReadError):
        list(iter_video_frames(tmp_path / name))


def test_damage_in_a_video_comes_after_the_sound_frames(tmp_path):
    path = make_video(tmp_path / "a.avi", frames=30)
    data = path.read_bytes()
    assert len(list(iter_video_frames(path))) == 30
    for seed in range(20):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        for spot in rng.integers(0, len(data), 20):
            damaged[spot] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            for _, _, frame in iter_video_frames(path):
                assert frame.shape[2] == 3
        except ImageReadError:
            pass


def test_real_videos(shared):
    index, seconds, frame = next(iter_video_frames(shared / "data" / "dfdc_videos" / "lynaeydofd.mp4"))
    assert (index, seconds) == (0, 0.0)
    assert frame.ndim == 3


def test_a_broken_consumer_keeps_its_exception(tmp_path):
    def consume():
        for _ in iter_video_frames(make_video(tmp_path / "a.mp4")):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()


def test_bytes_of_every_seed_are_sound(tmp_path, rng):
    from hostile_files import SEEDS

    for name, make in SEEDS.items():
        (tmp_path / "a").write_bytes(make(rng))
        with Image.open(io.BytesIO(make(rng))) as image:
            width, height = image.size
        assert read_image(tmp_path / "a").shape == (height, width, 3), name
