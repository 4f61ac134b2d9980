import logging

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.targets import read_forgery_mask, resize_nearest
from ddl_d2.data.transforms.geometric import RandomFlip
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.errors import ImageReadError
from ddl_d2.faces.crop import FaceCropper, FaceWindow
from ddl_d2.faces.face import Face
from ddl_d2.io.image import write_png


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (64,), 256
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 256
    cfg.INPUT.CROP.SIZE = [48, 48]
    return cfg


@pytest.fixture
def fake(tmp_path):
    """A fake of 40 x 60 pixels, green in its forged right half, gray on the left."""
    return make_fake(tmp_path)


def make_fake(folder, size=(40, 60), mask_size=None):
    image = np.full((*size, 3), 128, np.uint8)
    image[:, size[1] // 2 :] = (0, 255, 0)
    write_png(folder / "fake.png", image)
    mask = np.zeros(mask_size or size, bool)
    mask[:, mask.shape[1] // 2 :] = True
    write_png(folder / "mask.png", mask)
    return {
        "file_name": str(folder / "fake.png"),
        "mask_file_name": str(folder / "mask.png"),
        "image_id": "fake.png",
        "is_fake": 1,
    }


def real_of(row):
    return {key: value for key, value in row.items() if key != "mask_file_name"} | {"is_fake": 0}


def test_training_row(cfg, fake):
    np.random.seed(0)
    cfg.INPUT.COLOR_AUG_SSD = False
    row = ForgeryDatasetMapper(cfg, True)(fake)
    assert row["image"].dtype == torch.uint8
    assert row["image"].shape[0] == 3
    assert row["image"].shape[1:] == row["forgery_mask"].shape == row["instances"].image_size
    assert row["image"].is_contiguous()
    assert max(row["forgery_mask"].shape) <= 48
    assert (row["height"], row["width"], row["is_fake"]) == (40, 60, 1)
    assert row["localization_valid"] is True
    assert row["mask_resized"] is False
    assert {key: row[key] for key in fake if key != "is_fake"} == {k: v for k, v in fake.items() if k != "is_fake"}
    # The mask has been moved as the image was: forged where it is green.
    green = row["image"][1] > row["image"][0].int() + 128
    assert (green != row["forgery_mask"]).float().mean() < 0.03
    torch.testing.assert_close(row["instances"].gt_masks.tensor[0], row["forgery_mask"])


def test_real_row(cfg, fake):
    row = ForgeryDatasetMapper(cfg, True)(real_of(fake))
    assert row["is_fake"] == 0
    assert not row["forgery_mask"].any()
    assert len(row["instances"]) == 0
    assert row["localization_valid"] is True


def test_testing_row(cfg, fake):
    row = ForgeryDatasetMapper(cfg, False)(fake)
    assert row["image"].shape == (3, 64, 96)
    assert (row["height"], row["width"]) == (40, 60)
    assert not {"forgery_mask", "instances", "localization_valid"} & set(row)
    again = ForgeryDatasetMapper(cfg, False)(fake)
    torch.testing.assert_close(row["image"], again["image"], rtol=0, atol=0)
    unlabeled = {key: fake[key] for key in ("file_name", "image_id")}
    assert "is_fake" not in ForgeryDatasetMapper(cfg, False)(unlabeled)


def test_the_same_seed_gives_the_same_row(cfg, fake):
    cfg.INPUT.JPEG_PROB = 0.5
    mapper = ForgeryDatasetMapper(cfg, True)
    rows = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        rows.append(mapper(fake))
    assert torch.equal(rows[0]["image"], rows[1]["image"])
    assert rows[0]["image"].shape != rows[2]["image"].shape or not torch.equal(rows[0]["image"], rows[2]["image"])


def test_fake_without_mask(cfg, fake):
    del fake["mask_file_name"]
    row = ForgeryDatasetMapper(cfg, True)(fake)
    assert (row["is_fake"], row["localization_valid"], len(row["instances"])) == (1, False, 0)
    assert not row["forgery_mask"].any()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2  # not even an authentic region is known
    assert len(ForgeryDatasetMapper(cfg, True)(fake)["instances"]) == 0
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 1
    row = ForgeryDatasetMapper(cfg, True)(fake | {"fully_forged": True})
    assert row["localization_valid"] is True
    assert row["forgery_mask"].all()
    assert len(row["instances"]) == 1


def test_an_unknown_mask_is_not_relabeled(cfg, fake):
    cfg.INPUT.CROP.EMPTY_POLICY = "relabel"
    del fake["mask_file_name"]
    assert ForgeryDatasetMapper(cfg, True)(fake)["is_fake"] == 1


class _RightHalf(T.Augmentation):
    """Cuts the left half away."""

    def get_transform(self, image):
        height, width = image.shape[:2]
        return T.CropTransform(width // 2, 0, width - width // 2, height)


@pytest.mark.parametrize(("policy", "label"), [("keep", 1), ("relabel", 0)])
def test_empty_crop(fake, tmp_path, policy, label):
    mask = np.zeros((40, 60), bool)
    mask[5, 5] = True
    write_png(tmp_path / "mask.png", mask)
    row = ForgeryDatasetMapper(True, augmentations=[_RightHalf()], empty_policy=policy)(fake)
    assert not row["forgery_mask"].any()
    assert row["is_fake"] == label
    assert row["localization_valid"] is True


@pytest.mark.parametrize("policy", ["keep", "relabel"])
@pytest.mark.parametrize(("value", "coding"), [(0, "0"), (2, "0, 2"), (100, "0, 100")])
def test_a_fake_with_nothing_forged_is_unusable(fake, tmp_path, policy, value, coding):
    """It is neither trained on as fake nor as real."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 5:20] = value
    write_png(tmp_path / "mask.png", mask)
    said = f"marks nothing as forged: its gray values are {coding}, and forged is 128 or more$"
    with pytest.raises(ImageReadError, match=said) as caught:
        ForgeryDatasetMapper(True, augmentations=[], empty_policy=policy)(fake)
    assert caught.value.path == fake["mask_file_name"]


def test_mask_of_another_size(cfg, tmp_path, caplog):
    row = make_fake(tmp_path, mask_size=(20, 30))
    with caplog.at_level(logging.WARNING):
        mapped = ForgeryDatasetMapper(cfg, True)(row)
    assert mapped["mask_resized"] is True
    mask, resized = read_forgery_mask(row, 40, 60)
    assert resized
    np.testing.assert_array_equal(mask, np.arange(60)[None] >= np.full((40, 1), 30))


def test_nearest_takes_the_pixel_under_the_center():
    assert resize_nearest(np.arange(4)[None], 1, 2).tolist() == [[1, 3]]
    assert resize_nearest(np.arange(2)[None], 2, 5).tolist() == [[0, 0, 1, 1, 1]] * 2
    assert resize_nearest(np.arange(9)[None], 1, 3).tolist() == [[1, 4, 7]]


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (47, 49)])
def test_awkward_sizes(cfg, tmp_path, size):
    row = make_fake(tmp_path, size=size)
    for seed in range(5):
        np.random.seed(seed)
        mapped = ForgeryDatasetMapper(cfg, True)(row)
        assert mapped["image"].shape[1:] == mapped["forgery_mask"].shape
        assert min(mapped["image"].shape) >= 1
    assert ForgeryDatasetMapper(cfg, False)(row)["image"].numel()


def test_instances_of_the_crop(cfg, fake):
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    cfg.INPUT.CROP.ENABLED = False
    row = ForgeryDatasetMapper(cfg, True)(fake)
    assert row["instances"].gt_classes.tolist() == [0, 1]


def test_forge_is_injected(cfg, fake):
    def forge(image, mask, row):
        assert not mask.any()
        mask = np.ones_like(mask)
        return 255 - image, mask, 1

    row = ForgeryDatasetMapper(cfg, True, forge=forge)(real_of(fake))
    assert row["is_fake"] == 1
    assert row["forgery_mask"].all()


def windows(*found, landmarks=None):
    """A `crop` function that always gives these windows, with a face if it has landmarks."""
    there = None if landmarks is None else Face((0.0, 0.0, 1.0, 1.0), np.array(landmarks, np.float64))
    return lambda image: [FaceWindow(window, there) for window in found]


def test_training_on_a_window(cfg, fake):
    mapper = ForgeryDatasetMapper(True, augmentations=[], crop=windows((20, 5, 50, 25)))
    row = mapper(fake)
    assert row["image"].shape == (3, 20, 30)
    assert (row["height"], row["width"], row["is_fake"]) == (40, 60, 1)
    # Forged from x = 30 on: the last 20 of the window's 30 columns.
    assert row["forgery_mask"][:, 10:].all()
    assert not row["forgery_mask"][:, :10].any()
    assert (row["image"][1] == 255).equal(row["forgery_mask"])


def test_a_window_without_forged_pixels_is_real(cfg, fake):
    crop = windows((0, 0, 30, 40))
    seen = []

    def forge(image, mask, row):
        seen.append(row["is_fake"])
        return image, mask, row["is_fake"]

    for policy in ("keep", "relabel"):
        mapper = ForgeryDatasetMapper(True, augmentations=[], empty_policy=policy, crop=crop, forge=forge)
        assert mapper(fake)["is_fake"] == 0
        assert mapper(fake)["localization_valid"] is True
    assert set(seen) == {0}
    # One column more shows a forged one; an unknown mask proves nothing.
    assert ForgeryDatasetMapper(True, augmentations=[], crop=windows((0, 0, 31, 40)))(fake)["is_fake"] == 1
    del fake["mask_file_name"]
    row = ForgeryDatasetMapper(True, augmentations=[], crop=crop)(fake)
    assert (row["is_fake"], row["localization_valid"]) == (1, False)
    assert ForgeryDatasetMapper(True, augmentations=[], crop=crop)(real_of(fake))["is_fake"] == 0


def test_testing_on_windows(cfg, fake):
    crop = windows((0, 0, 60, 40), (20, 5, 50, 25))
    row = ForgeryDatasetMapper(cfg, False, crop=crop)(fake)
    assert "image" not in row
    assert (row["height"], row["width"], row["image_id"]) == (40, 60, "fake.png")
    whole, part = row["crops"]
    assert (whole["window"], part["window"]) == ((0, 0, 60, 40), (20, 5, 50, 25))
    torch.testing.assert_close(whole["image"], ForgeryDatasetMapper(cfg, False)(fake)["image"], rtol=0, atol=0)
    assert part["image"].shape == (3, 64, 96)  # 20 × 30, its shortest side made 64
    assert part["image"].is_contiguous()
    assert (part["image"][1, :, 40:] == 255).all()
    assert (part["image"][1, :, :28] == 128).all()


@pytest.mark.parametrize("found", [True, False])
def test_testing_tells_whether_a_face_was_found(cfg, fake, synthetic_face, found):
    crop = FaceCropper(lambda image: [synthetic_face()] if found else [])
    assert ForgeryDatasetMapper(cfg, False, crop=crop)(fake)["has_face"] is found
    assert "has_face" not in ForgeryDatasetMapper(cfg, False)(fake)


# A nose of 5 landmarks, in a window of 40 × 30 that is made twice as large: its tip at ((x - 10) · 2, (y - 5) · 2).
@pytest.mark.parametrize(
    ("tip", "flip", "box"),
    [
        ((26, 20), 0.0, (27, 25, 37, 35)),  # (16, 15) -> (32, 30)
        ((26, 20), 1.0, (43, 25, 53, 35)),  # mirrored at 80: 48
        ((12, 6), 0.0, (0, 0, 9, 7)),  # (2, 1) -> (4, 2): clipped on the left and above
        ((0, 20), 0.0, None),  # (-10, 15): outside by more than the margin
    ],
)
def test_nose_box(fake, tip, flip, box):
    landmarks = [(0, 0), (1, 0), tip, (0, 1), (1, 1)]
    steps = [ResizeToFit(60, 200), RandomFlip(prob=flip)]
    mapper = ForgeryDatasetMapper(
        True, augmentations=steps, crop=windows((10, 5, 50, 35), landmarks=landmarks), nose_box=True
    )
    row = mapper(fake)
    assert row["image"].shape == (3, 60, 80)
    if box is None:
        assert "nose_box" not in row
    else:
        assert row["nose_box"].dtype == torch.float32
        assert row["nose_box"].tolist() == list(box)


def test_no_nose_box(fake):
    landmarks = np.full((68, 2), 20)
    for options in ({"nose_box": False, "crop": windows((0, 0, 60, 40), landmarks=landmarks)},
                    {"nose_box": True, "crop": windows((0, 0, 60, 40))},
                    {"nose_box": True}):  # fmt: skip
        assert "nose_box" not in ForgeryDatasetMapper(True, augmentations=[], **options)(fake)


def test_errors_name_the_image(cfg, fake, tmp_path):
    mapper = ForgeryDatasetMapper(cfg, True)
    with pytest.raises(ValueError, match=r"fake\.png.*no real/fake label"):
        mapper({"file_name": fake["file_name"]})
    (tmp_path / "mask.png").write_bytes(b"nothing")
    with pytest.raises(ImageReadError, match=r"mask\.png"):
        mapper(fake)
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        mapper(fake | {"file_name": str(tmp_path / "gone.png")})


def test_bad_settings(cfg):
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match="RGB"):
        ForgeryDatasetMapper(cfg, True)
    cfg.INPUT.FORMAT, cfg.INPUT.CROP.EMPTY_POLICY = "RGB", "drop"
    with pytest.raises(ValueError, match="drop"):
        ForgeryDatasetMapper(cfg, True)
    cfg.INPUT.CROP.EMPTY_POLICY, cfg.INPUT.CROP.TYPE = "keep", "relative"
    with pytest.raises(ValueError, match="absolute"):
        ForgeryDatasetMapper(cfg, True)
