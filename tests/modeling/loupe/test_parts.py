"""Classifier, pyramid, condition and targets, each by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances
from PIL import Image

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.tokens import Tokens
from ddl_d2.modeling.loupe.classifier import PatchAwareClassifier
from ddl_d2.modeling.loupe.pyramid import SimplePyramid
from ddl_d2.modeling.loupe.segmentor import Condition
from ddl_d2.modeling.loupe.targets import PseudoLabels, patch_labels, query_targets
from ddl_d2.modeling.preprocessing import stretched_batch

CPU = torch.device("cpu")


def _tokens(count: int = 4, channels: int = 6) -> Tokens:
    torch.manual_seed(0)
    side = math.isqrt(count)
    return Tokens(tokens=torch.randn(2, count, channels), pooled=torch.randn(2, channels), grid=(side, side))


def test_the_image_is_the_mean_of_whole_and_patches_at_first():
    classifier = PatchAwareClassifier(channels=6, num_patches=4)
    logits = classifier(_tokens())
    assert logits.patches.shape == (2, 4)
    every = torch.cat([logits.whole[:, None], logits.patches], dim=1)
    assert torch.allclose(logits.image, every.mean(dim=1))  # weights start at 1 / 5
    assert classifier.global_head[0].out_features == 12


def test_without_patches_the_pooled_feature_decides():
    classifier = PatchAwareClassifier(channels=6, num_patches=4, patch_head=False)
    logits = classifier(_tokens())
    assert logits.patches is None
    assert torch.equal(logits.image, logits.whole)
    assert {name.partition(".")[0] for name, _ in classifier.named_parameters()} == {"global_head"}


def test_tokens_of_another_size_are_refused():
    with pytest.raises(ConfigError, match=r"9 tokens \(3 x 3\) and the classifier weighs 4"):
        PatchAwareClassifier(channels=6, num_patches=4)(_tokens(count=9))


def test_pyramid_has_a_level_for_each_step_and_leaves_the_map_itself_alone():
    pyramid = SimplePyramid(channels=8)
    feature = torch.randn(2, 8, 6, 6)
    levels = pyramid(feature)
    assert [levels[name].shape[-1] for name in pyramid.output_shape()] == [24, 12, 6, 3]
    assert torch.equal(levels["res4"], feature)
    assert {level.norm.eps for level in pyramid.levels["res2"]} == {1e-6}
    assert not any(name.startswith("levels.res4") for name, _ in pyramid.named_parameters())


def test_condition_lies_between_its_two_vectors():
    condition = Condition(dim=3)
    real, fake = condition.real_and_fake.weight
    got = condition(torch.tensor([0.0, 1.0, 0.25]))
    assert torch.allclose(got, torch.stack([real, fake, 0.25 * fake + 0.75 * real]))
    condition(torch.zeros(2)).sum().backward()
    assert condition.real_and_fake.weight.grad[1].eq(0).all()  # a batch of real images: no gradient, but attached
    assert condition.real_and_fake.weight.grad[0].eq(2).all()


def _row(mask: np.ndarray, **more) -> dict:
    masks = torch.from_numpy(mask)[None]
    found = Instances(mask.shape, gt_classes=torch.zeros(1, dtype=torch.int64), gt_masks=BitMasks(masks))
    return {"instances": found, "forgery_mask": masks[0], "image_id": "a", **more}


def test_labels_are_the_forged_share_of_each_patch():
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2, :3] = True
    # 2 × 2 patches of 2 × 2 pixels: 4 of 4, 2 of 4, none, none.
    assert patch_labels([_row(mask)], (4, 4), (2, 2), CPU).tolist() == [[1.0, 0.5, 0.0, 0.0]]
    (target,) = query_targets([_row(mask, localization_valid=False)], (8, 8), CPU)
    assert target.masks.shape == (1, 8, 8)
    assert target.masks.dtype == torch.bool
    assert int(target.masks.sum()) == 24
    assert (target.supervised, target.image_id) == (False, "a")


def test_a_real_image_has_no_target():
    row = _row(np.zeros((5, 7), dtype=bool))
    row["instances"] = row["instances"][:0]
    (target,) = query_targets([row], (4, 4), CPU)
    assert len(target.masks) == len(target.classes) == 0


def test_pseudo_labels_become_targets_where_the_score_says_fake():
    masks = torch.rand(2, 3, 3)
    labels = PseudoLabels(condition=torch.tensor([0.9, 0.2]), masks=masks, has_target=torch.tensor([True, False]))
    fake, real = labels.targets(["f", "r"])
    assert torch.equal(fake.masks, masks[:1])
    assert fake.classes.tolist() == [0]
    assert real.masks.shape == (0, 3, 3)
    assert (fake.image_id, real.image_id) == ("f", "r")


@pytest.mark.parametrize("i", [0, 1, 2])
def test_preprocessing_is_the_published_one(shared, i):
    """Images to one gray level (the published ones are rounded), masks and labels exactly."""
    known = np.load(shared / "reference" / "loupe" / "loupe_preprocess.npz")
    size, image = (112, 112), known[f"image_{i}"]
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    pixels = stretched_batch([{"image": torch.from_numpy(image.transpose(2, 0, 1).copy())}], size, zero, one)[0]
    assert np.abs(pixels.numpy() - known[f"pixels_{i}"]).max() <= 1
    assert np.array_equal(
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1),
        known[f"pixels_{i}"],
    )
    hard = _row(known[f"hard_{i}"] > 0)
    assert np.array_equal(query_targets([hard], size, CPU)[0].masks.numpy(), known[f"mask_hard_{i}"])
    soft = known[f"soft_{i}"].astype(np.float32)
    spread = torch.from_numpy((soft - soft.min()) / (soft.max() - soft.min()))
    for kind, row in (("hard", hard), ("soft", hard | {"soft_mask": spread})):
        got = patch_labels([row], size, (8, 8), CPU)[0].view(8, 8)
        assert np.allclose(got, known[f"patch_labels_{kind}_{i}"], atol=1e-5), kind
