"""A mask and its image: which way up, and how large."""

import numpy as np
import pytest
from PIL import Image

from ddl_d2.data.datasets.check import check_row
from ddl_d2.data.mask_fit import MaskOrientationError, MaskShapeError, fit_mask
from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import ImageReadError
from ddl_d2.io.image import read_image
from ddl_d2.io.orientation import EXIF_TURNS, UPRIGHT, turned
from tests.io.test_image_video import make_video, turn_video
from tests.video_files import write_mask_video

SIZES = [(40, 60), (60, 40)]


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def corner_mask(size):
    """Forged in the upper left of what is seen."""
    mask = np.zeros(size, bool)
    mask[: size[0] // 10 * 4, : size[1] // 10 * 6] = True
    return mask


def save_turned(path, seen, orientation):
    """Save pixels (as they are seen) so that EXIF turns what is stored upright."""
    turn = EXIF_TURNS[orientation]
    stored = seen[:: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]
    stored = stored.swapaxes(0, 1) if turn.swapped else stored
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif(orientation))
    return np.ascontiguousarray(stored)


def make_row(tmp_path, orientation, size=(40, 60)):
    """A fake whose forged part is bright, stored as `orientation` says; its row, the mask as seen and as stored."""
    seen = corner_mask(size)
    image = np.repeat(np.where(seen, 220, 30).astype(np.uint8)[..., None], 3, axis=2)
    save_turned(tmp_path / "image.png", image, orientation)
    stored = save_turned(tmp_path / "stored.png", np.where(seen, 255, 0).astype(np.uint8), orientation)
    row = {"image_id": "image.png", "file_name": str(tmp_path / "image.png"), "is_fake": 1}
    return row | {"mask_file_name": str(tmp_path / "mask.png")}, seen, stored


def iou(row, size):
    """Of the mask that is read and what is bright in the image that is read."""
    mask, bright = read_forgery_mask(row, *size).mask, read_image(row["file_name"])[..., 0] > 128
    return (mask & bright).sum() / (mask | bright).sum()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_mask_as_its_image_is_stored_is_turned_with_it(tmp_path, size, orientation, scale):
    row, _, stored = make_row(tmp_path, orientation, size)
    Image.fromarray(stored[::scale, ::scale]).save(tmp_path / "mask.png")
    assert iou(row, size) == 1
    assert read_forgery_mask(row, *size).resized == (scale == 2)
    found = [kind for kind, _ in check_row(row, max_pixels=10**6)]
    assert found == (["mask_turned"] if scale == 1 else ["mask_size", "mask_turned"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_as_its_image_is_seen_is_taken_as_it_is(tmp_path, size, orientation):
    row, seen, _ = make_row(tmp_path, orientation, size)
    Image.fromarray(seen).save(tmp_path / "mask.png")
    assert iou(row, size) == 1
    assert check_row(row, max_pixels=10**6) == []


@pytest.mark.parametrize(
    ("orientation", "size"), [*((o, (40, 60)) for o in (2, 3, 4)), *((o, (40, 40)) for o in (5, 6, 7, 8))]
)
def test_a_mask_that_may_be_turned_or_not_is_refused(tmp_path, orientation, size):
    row, seen, stored = make_row(tmp_path, orientation, size)
    for mask in (seen, stored):
        Image.fromarray(mask).save(tmp_path / "mask.png")
        with pytest.raises(ImageReadError, match=r"mask\.png: .*EXIF"):
            read_forgery_mask(row, *size)
        assert [kind for kind, _ in check_row(row, max_pixels=10**6)] == ["mask_orientation"]
    # Nothing is in doubt where the mask says how it is turned, or looks the same both ways.
    (tmp_path / "mask.png").write_bytes((tmp_path / "stored.png").read_bytes())
    assert iou(row, size) == 1
    Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / "mask.png")
    assert read_forgery_mask(row, *size).mask.all()


def test_without_exif_nothing_is_in_doubt(tmp_path):
    row, seen, _ = make_row(tmp_path, 1)
    Image.fromarray(seen).save(tmp_path / "mask.png")
    assert iou(row, (40, 60)) == 1


def test_a_mask_of_another_shape_is_not_stretched(tmp_path):
    for orientation, shape in ((1, (60, 40)), (1, (40, 40)), (1, (40, 70)), (6, (30, 70))):
        row, _, _ = make_row(tmp_path, orientation)
        Image.fromarray(np.eye(*shape, dtype=bool)).save(tmp_path / "mask.png")
        says = rf"mask\.png: the mask has {shape[1]} x {shape[0]} pixels, its image 60 x 40"
        with pytest.raises(ImageReadError, match=says):
            read_forgery_mask(row, 40, 60)
        ((kind, example),) = check_row(row, max_pixels=10**6)
        assert kind == "mask_shape"
        assert example == f"image.png: 60 x 40, mask {shape[1]} x {shape[0]}"


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        *[
            ((1080, 1920), (270, 480)),
            ((1080, 1920), (2160, 3840)),
            ((721, 1281), (720, 1280)),
            ((721, 1280), (720, 1280)),
        ],
        *[((720, 1281), (720, 1280)), ((333, 500), (213, 320)), ((333, 500), (213, 321)), ((9, 13), (9, 12))],
    ],
)
def test_rounded_sides_are_the_same_shape(size, shape):
    assert fit_mask(np.ones(shape, bool), size, UPRIGHT, path="m").mask.shape == size


def test_other_shapes(rng):
    for size, shape in (((1080, 1920), (1080, 1440)), ((720, 1280), (720, 1270)), ((64, 64), (64, 48))):
        with pytest.raises(MaskShapeError):
            fit_mask(np.ones(shape, bool), size, UPRIGHT, path="m")
    # Nearly square, and turned: only the exact size tells.
    mask = rng.integers(0, 2, (100, 101)).astype(bool)
    turn = EXIF_TURNS[6]
    np.testing.assert_array_equal(fit_mask(mask, (101, 100), turn, path="m").mask, turned(mask, turn))
    np.testing.assert_array_equal(fit_mask(mask, (100, 101), turn, path="m").mask, mask)
    with pytest.raises(MaskOrientationError):
        fit_mask(mask[::2, 1::2], (101, 100), turn, path="m")


def test_masks_of_turned_videos(tmp_path):
    """What holds for EXIF holds for display matrices, too."""
    make_video(tmp_path / "a.mp4", size=(32, 48))
    turn_video(tmp_path / "a.mp4", "a quarter turn clockwise")
    write_mask_video(tmp_path / "stored.mp4", size=(32, 48))  # white on the left: seen, it is on top
    row = {"image_id": "a.mp4/000001", "file_name": str(tmp_path / "a.mp4"), "frame_index": 1, "is_fake": 1}
    mask = read_forgery_mask(row | {"mask_file_name": str(tmp_path / "stored.mp4")}, 48, 32).mask
    assert mask[:20].all()
    assert not mask[28:].any()
    turn_video(tmp_path / "a.mp4", "a half turn")
    with pytest.raises(ImageReadError, match="display matrix"):
        read_forgery_mask(row | {"mask_file_name": str(tmp_path / "stored.mp4")}, 32, 48)
