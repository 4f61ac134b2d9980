import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T

from ddl_d2.config.defaults import add_ddl_config
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
