"""Rows with tokens for an image: all else is as in rows with images, and images that change are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddl_d2.data.build import all_rows, build_test_loader, build_train_loader
from ddl_d2.data.datasets import register_datasets
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.token_cache import CachedImage, TokenCache, TokenWriter, image_key
from ddl_d2.data.token_mapper import CachedTokensMapper, UncachedImages, check_filled, refuse_changing_images
from ddl_d2.errors import ConfigError, DatasetError, ImageReadError
from ddl_d2.io.image import write_png
from tests.conftest import make_tiny_set
from tests.loupe_small import SMALL_LOUPE

TOKENS = {"tokens": torch.zeros(4, 2), "pooled": torch.ones(2)}


@pytest.fixture
def data(tmp_path, tiny_cfg):
    """`data(KEY, VALUE, ...)` -> the tiny set's config, its training rows, and a cache of the tokens of all."""

    def build(*opts):
        cfg = tiny_cfg(*SMALL_LOUPE, "DATASETS.DDL_ROOT", str(make_tiny_set(tmp_path / "data")), *opts)
        cfg.MODEL.LOUPE.TOKEN_CACHE = str(tmp_path / "tokens")
        register_datasets(cfg)
        rows = all_rows("ddl_i_train")
        writer = TokenWriter(tmp_path / "tokens", {})
        for row in rows:
            writer.add(image_key(row), CachedImage(64, 80, TOKENS))
        writer.flush()
        return cfg, rows, TokenCache(tmp_path / "tokens")

    return build


@pytest.mark.parametrize("sizes", [("(0,)", "64 × 80"), ("(32,)", "32 × 40")])
def test_a_training_row_is_as_with_its_image(data, sizes):
    cfg, rows, cache = data("INPUT.MIN_SIZE_TRAIN", sizes[0])
    with_image, with_tokens = ForgeryDatasetMapper(cfg, True), CachedTokensMapper(cfg, True, cache=cache)
    for row in rows:
        expected, given = with_image(row), with_tokens(row)
        assert f"{expected['image'].shape[1]} × {expected['image'].shape[2]}" == sizes[1]
        del expected["image"]
        assert given.pop("tokens").keys() == TOKENS.keys()
        assert given.keys() == expected.keys()
        assert torch.equal(given.pop("forgery_mask"), expected.pop("forgery_mask"))
        ours, theirs = given.pop("instances"), expected.pop("instances")
        assert torch.equal(ours.gt_masks.tensor, theirs.gt_masks.tensor)
        assert torch.equal(ours.gt_classes, theirs.gt_classes)
        assert given == expected


def test_testing_rows_have_the_tokens_that_are_there(data):
    cfg, rows, cache = data()
    mapper = CachedTokensMapper(cfg, False, cache=cache)
    row = mapper(rows[0])
    assert "image" not in row
    assert (row["height"], row["width"]) == (64, 80)
    write_png(rows[0]["file_name"], np.zeros((64, 80, 3), np.uint8))
    row = mapper(rows[0])
    assert "tokens" not in row
    assert row["image"].shape == (3, 64, 80)
    loaded = [row for batch in build_test_loader(cfg, "ddl_i_train") for row in batch]
    assert sum("tokens" in row for row in loaded) == len(rows) - 1


def test_tests_that_fit_images_otherwise_read_them(data):
    cfg, _, _ = data("INPUT.MIN_SIZE_TEST", "32")
    assert all("image" in row for batch in build_test_loader(cfg, "ddl_i_train") for row in batch)


def test_a_changed_image_is_not_trained_on(data):
    cfg, rows, cache = data()
    write_png(rows[3]["file_name"], np.zeros((64, 80, 3), np.uint8))
    with pytest.raises(ImageReadError, match=r"has no tokens in .*: it is new, or was changed since. Run `ddl-d2 cach"):
        CachedTokensMapper(cfg, True, cache=cache)(rows[3])
    with pytest.raises(
        DatasetError, match=r"1 of 8 training images looked at have no tokens .*real/3.png: they are new"
    ):
        check_filled(cache, rows, max_pixels=10**6)
    with pytest.raises(DatasetError, match="1 of 8"):
        build_train_loader(cfg)


def test_a_file_that_is_no_image_counts_as_bad(data):
    cfg, rows, cache = data()
    with open(rows[3]["file_name"], "wb") as file:
        file.write(b"no image")
    check_filled(cache, rows, max_pixels=10**6)
    with pytest.raises(ImageReadError, match="is not a readable JPEG"):
        CachedTokensMapper(cfg, True, cache=cache)(rows[3])


def test_only_images_without_tokens_are_read_to_fill(data):
    cfg, rows, cache = data("INPUT.MIN_SIZE_TRAIN", "(32,)")
    assert "image" not in UncachedImages(cfg, True, cache=cache)(rows[0])
    row = UncachedImages(cfg, True, cache=None)(rows[0])
    assert row["image"].shape == (3, 32, 40)
    assert (row["height"], row["width"]) == (64, 80)
    assert row["key"] == image_key(rows[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.CROP.ENABLED", "True"),
        ("INPUT.RANDOM_FLIP", "horizontal"),
        ("INPUT.COLOR_AUG_SSD", "True"),
        ("INPUT.JPEG_PROB", "0.1"),
        ("INPUT.AUGMENT.BLUR_PROB", "0.1"),
        ("INPUT.AUGMENT.COPY_MOVE_PROB", "0.1"),
        ("INPUT.SELF_BLEND.ENABLED", "True"),
        ("INPUT.FACE_SWAP.ENABLED", "True"),
        ("INPUT.FACE_CROP.ENABLED", "True"),
        ("INPUT.MIN_SIZE_TRAIN", "(32, 64)"),
    ],
)
def test_images_that_change_are_refused(tiny_cfg, key, value):
    refuse_changing_images(tiny_cfg(*SMALL_LOUPE))
    with pytest.raises(ConfigError, match=rf"this config changes them; set {key}") as refused:
        refuse_changing_images(tiny_cfg(*SMALL_LOUPE, key, value))
    assert "\n" not in str(refused.value)


def test_a_random_scale_is_refused_where_images_are_resized(tiny_cfg):
    refuse_changing_images(tiny_cfg(*SMALL_LOUPE, "INPUT.SCALE_RANGE", "[0.5, 2.0]"))
    with pytest.raises(ConfigError, match=r"INPUT.SCALE_RANGE \[1.0, 1.0\]"):
        refuse_changing_images(
            tiny_cfg(*SMALL_LOUPE, "INPUT.MIN_SIZE_TRAIN", "(32,)", "INPUT.SCALE_RANGE", "[0.5, 2.0]")
        )
