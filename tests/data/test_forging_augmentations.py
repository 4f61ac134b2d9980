import numpy as np
import pytest
from detectron2.config import get_cfg

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.build import build_train_mapper
from ddl_d2.data.forging_augmentations import ForgeInTurn, RandomlyForge, build_forge
from ddl_d2.data.self_blending_mapper import build_self_blending_mapper
from ddl_d2.errors import ConfigError
from ddl_d2.forging.rectangles import copy_move, inpaint
from ddl_d2.io.image import write_png

ROW = {"file_name": "a.png", "is_fake": 0}


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.RANDOM_FLIP, cfg.INPUT.COLOR_AUG_SSD = False, "none", False
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.SCALE_RANGE = (40,), [1.0, 1.0]
    return cfg


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_a_forged_image_is_fake_and_its_mask_grows(image):
    mask = np.zeros((40, 60), bool)
    mask[0, :] = True
    np.random.seed(0)
    forged, new, is_fake = RandomlyForge(copy_move, 1.0)(image, mask, ROW)
    assert is_fake == 1
    assert new[0].all()
    assert new.sum() > 60
    np.testing.assert_array_equal(forged[~new], image[~new])


def test_how_often(image):
    mask = np.zeros((40, 60), bool)
    np.random.seed(0)
    results = [RandomlyForge(copy_move, 0.1)(image, mask, ROW) for _ in range(500)]
    assert 30 < sum(is_fake for _, _, is_fake in results) < 70
    assert all(forged is image and kept is mask for forged, kept, is_fake in results if not is_fake)


def test_one_after_the_other_each_sees_what_the_last_left():
    seen = []

    def add(corner):
        def forge(image, mask, row):
            seen.append((image.copy(), mask.copy(), row["is_fake"]))
            image, mask = image.copy(), mask.copy()
            image[corner], mask[corner] = 255, True
            return image, mask, 1

        return forge

    both = ForgeInTurn([add((0, 0)), add((1, 2))])
    _, mask, is_fake = both(np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), bool), ROW)
    assert is_fake == 1
    assert mask.tolist() == [[True, False, False], [False, False, True]]
    assert [label for _, _, label in seen] == [0, 1]
    assert seen[1][1].tolist() == [[True, False, False], [False, False, False]]
    assert seen[1][0][0, 0].tolist() == [255] * 3
    assert ROW["is_fake"] == 0


def test_what_a_config_asks_for(cfg):
    def first(image, mask, row):
        return image, mask, 1

    assert build_forge(cfg) is None
    assert build_forge(cfg, first) is first
    cfg.INPUT.AUGMENT.COPY_MOVE_PROB, cfg.INPUT.AUGMENT.INPAINT_PROB = 0.1, 0.2
    forges = build_forge(cfg, first).forges
    assert forges[0] is first
    assert [(forge.how, forge.probability) for forge in forges[1:]] == [(copy_move, 0.1), (inpaint, 0.2)]
    cfg.INPUT.AUGMENT.FORGED_SIDE = [0.5, 0.2]
    with pytest.raises(ConfigError, match=r"INPUT\.AUGMENT\.FORGED_SIDE"):
        build_forge(cfg)


def test_through_the_mapper_of_a_config(cfg, image, tmp_path):
    """A real image becomes fake with a mask, differs from itself only there, and does so again with one seed."""
    cfg.INPUT.AUGMENT.COPY_MOVE_PROB = 1.0
    write_png(tmp_path / "a.png", image)
    mapper = build_train_mapper(cfg)
    rows = []
    for _ in range(2):
        np.random.seed(1)
        rows.append(mapper({"file_name": str(tmp_path / "a.png"), "image_id": "a.png", "is_fake": 0}))
    assert rows[0]["is_fake"] == 1
    assert rows[0]["localization_valid"]
    assert len(rows[0]["instances"]) == 1
    changed = (rows[0]["image"].numpy() != image.transpose(2, 0, 1)).any(0)
    assert changed.any()
    assert not changed[~rows[0]["forgery_mask"].numpy()].any()
    np.testing.assert_array_equal(rows[0]["image"], rows[1]["image"])


def test_pairs_have_a_real_image_that_stays_real(cfg):
    cfg.INPUT.SELF_BLEND.ENABLED, cfg.INPUT.AUGMENT.INPAINT_PROB = True, 0.1
    with pytest.raises(ConfigError, match=r"INPAINT_PROB.*SELF_BLEND\.PAIRS False"):
        build_self_blending_mapper(cfg, lambda image: [])
    cfg.INPUT.SELF_BLEND.PAIRS = False
    assert len(build_self_blending_mapper(cfg, lambda image: []).forge.forges) == 2
