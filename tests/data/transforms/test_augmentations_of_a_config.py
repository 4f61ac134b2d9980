import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.load import read_config
from ddl_d2.data.transforms.build import build_augmentations
from ddl_d2.errors import ConfigError


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.RANDOM_FLIP, cfg.INPUT.COLOR_AUG_SSD = False, "none", False
    return cfg


ALL = ["VERTICAL_FLIP", "QUARTER_TURNS", "AFFINE", "GRAY", "COLOR", "NOISE", "BLUR"]


def test_the_list_of_a_config(cfg):
    assert [type(step).__name__ for step in build_augmentations(cfg, True)] == ["ResizeToFit"]
    for name in ALL:
        cfg.INPUT.AUGMENT[f"{name}_PROB"] = 1.0
    cfg.INPUT.JPEG_PROB, cfg.INPUT.COLOR_AUG_SSD = 1.0, True
    assert [type(step).__name__ for step in build_augmentations(cfg, True)] == [
        "ResizeToFit", "RandomFlip", "RandomQuarterTurns", "RandomShiftScaleRotate", "PhotometricDistortion",
        "RandomGray", "RandomColor", "RandomNoise", "RandomBlur", "JpegRecompress",
    ]  # fmt: skip
    assert [type(step).__name__ for step in build_augmentations(cfg, False)] == ["ResizeToFit"]
    cfg.INPUT.AUGMENT.BEFORE_RESIZE = True
    assert [type(step).__name__ for step in build_augmentations(cfg, True)] == [
        "RandomGray", "RandomColor", "RandomNoise", "RandomBlur", "JpegRecompress",
        "ResizeToFit", "RandomFlip", "RandomQuarterTurns", "RandomShiftScaleRotate", "PhotometricDistortion",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "side"), [("ddl_i/lfdl_xception", 299), ("ddl_i/mitl_mesorch", 512)])
def test_published_recipes_degrade_an_image_at_its_own_size(name, side):
    """A gray image of 4 sides, noise of variance 35: shrunk by 4, the triangle of 8 pixels that makes a pixel averages
    it to 35 · s², s = Σ w² over one axis with w = (1, 3, 5, 7, 7, 5, 3, 1) / 32, so s = 168 / 1024; and 1/12 for
    rounding. Put on after the shrinking, all 35 would be left."""
    cfg = read_config(name, ["MODEL.DEVICE", "cpu"]).clone()
    cfg.defrost()
    for key in [key for key in cfg.INPUT.AUGMENT if key.endswith("_PROB")]:
        cfg.INPUT.AUGMENT[key] = 0.0
    cfg.INPUT.AUGMENT.NOISE_PROB, cfg.INPUT.AUGMENT.NOISE_VARIANCE = 1.0, [35.0, 35.0]
    cfg.INPUT.JPEG_PROB, cfg.INPUT.SCALE_RANGE = 0.0, [1.0, 1.0]
    image = np.full((4 * side, 4 * side, 3), 128, np.uint8)

    def variance() -> float:
        np.random.seed(0)
        given = T.AugInput(image, sem_seg=np.zeros(image.shape[:2], np.uint8))
        T.AugmentationList(build_augmentations(cfg, True))(given)
        assert given.image.shape == (side, side, 3)
        return float(given.image.var())

    left = 35 * (168 / 1024) ** 2 + 1 / 12  # 1.03
    assert variance() == pytest.approx(left, rel=0.1)
    cfg.INPUT.AUGMENT.BEFORE_RESIZE = False
    assert variance() == pytest.approx(35, rel=0.05)


@pytest.mark.parametrize("size", [(40, 60), (33, 9), (1, 1), (4, 1)])
def test_the_whole_list_repeats_and_moves_mask_and_image_alike(cfg, size):
    """White where forged, black elsewhere: with what moves pixels alone, the mask is the image cut at one half."""
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2 + 1, size[1] // 3 :] = 1
    image = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)
    for name in ALL[:3]:
        cfg.INPUT.AUGMENT[f"{name}_PROB"] = 0.7
    for seed in range(12):
        np.random.seed(seed)
        given = T.AugInput(image, sem_seg=mask)
        T.AugmentationList(build_augmentations(cfg, True)[1:])(given)
        np.testing.assert_array_equal(given.sem_seg, given.image[:, :, 0] >= 128)
    for name in ALL:
        cfg.INPUT.AUGMENT[f"{name}_PROB"] = 0.7
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        given = T.AugInput(image, sem_seg=mask)
        T.AugmentationList(build_augmentations(cfg, True)[1:])(given)
        assert given.image.dtype == np.uint8
        assert given.image.shape[:2] == given.sem_seg.shape
        results.append((given.image.tobytes(), given.sem_seg.tobytes()))
    assert results[0] == results[1]
    assert results[0] != results[2] or size != (40, 60)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("VERTICAL_FLIP_PROB", 1.5, "VERTICAL_FLIP_PROB is 1.5"), ("COPY_MOVE_PROB", -0.1, "COPY_MOVE_PROB"),
     ("SCALE", 1.0, "scale below 1"), ("COLOR_KINDS", ["sepia"], "sepia"), ("BLUR_KINDS", [], "gaussian, motion"),
     ("BLUR_KERNEL", [4, 8], "odd"), ("NOISE_VARIANCE", [60.0, 10.0], "variance"), ("HSV", [1, 2, -3], "hsv")],
)  # fmt: skip
def test_values_out_of_their_limits(cfg, key, value, says):
    cfg.INPUT.AUGMENT[key] = value
    with pytest.raises(ConfigError, match=rf"INPUT\.AUGMENT.*{says}"):
        build_augmentations(cfg, True)
