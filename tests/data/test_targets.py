import numpy as np
import pytest
import torch
from skimage.measure import label

from ddl_d2.data.targets import forgery_mask_to_instances


def blobs():
    """Two blobs of 4 and 9 pixels that touch nowhere, and one of 2 that touches the second at a corner."""
    mask = np.zeros((12, 15), bool)
    mask[1:3, 1:3] = True
    mask[5:8, 5:8] = True
    mask[8, 8:10] = True
    return mask


def areas(instances):
    return instances.gt_masks.tensor.flatten(1).sum(1).tolist()


def test_union_is_one_target():
    instances = forgery_mask_to_instances(blobs())
    assert instances.image_size == (12, 15)
    assert instances.gt_classes.tolist() == [0]
    np.testing.assert_array_equal(instances.gt_masks.tensor[0].numpy(), blobs())


def test_components_are_8_connected():
    instances = forgery_mask_to_instances(blobs(), mode="connected_components", min_area=1)
    assert areas(instances) == [4, 11]
    assert instances.gt_classes.tolist() == [0, 0]


def test_small_components_are_dropped_and_the_union_is_not():
    assert areas(forgery_mask_to_instances(blobs(), mode="connected_components", min_area=5)) == [11]
    assert len(forgery_mask_to_instances(blobs(), mode="connected_components", min_area=12)) == 0
    assert areas(forgery_mask_to_instances(blobs(), min_area=1000)) == [15]


@pytest.mark.parametrize("mode", ["union", "connected_components"])
def test_an_empty_mask_is_no_target(mode):
    instances = forgery_mask_to_instances(np.zeros((3, 5), bool), mode=mode)
    assert len(instances) == 0
    assert instances.gt_masks.tensor.shape == (0, 3, 5)
    assert instances.gt_masks.tensor.dtype == torch.bool
    assert instances.gt_classes.dtype == torch.int64


def test_two_classes():
    instances = forgery_mask_to_instances(blobs(), num_classes=2, mode="connected_components", min_area=1)
    assert instances.gt_classes.tolist() == [0, 1, 1]
    assert areas(instances) == [12 * 15 - 15, 4, 11]
    real = forgery_mask_to_instances(np.zeros((3, 5), bool), num_classes=2)
    assert (real.gt_classes.tolist(), areas(real)) == ([0], [15])
    full = forgery_mask_to_instances(np.ones((3, 5), bool), num_classes=2)
    assert (full.gt_classes.tolist(), areas(full)) == ([1], [15])


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 57)])
@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_components_agree_with_scikit_image(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    instances = forgery_mask_to_instances(mask, mode="connected_components", min_area=1, max_instances=10_000)
    labels = label(mask, connectivity=2)
    assert len(instances) == labels.max()
    for index, part in enumerate(instances.gt_masks.tensor.numpy(), start=1):
        np.testing.assert_array_equal(part, labels == labels[part][0], err_msg=str(index))


def test_only_the_largest_of_many():
    mask = np.zeros((40, 40), bool)
    mask[::2, ::2] = True
    mask[30:34, 3:9] = True
    instances = forgery_mask_to_instances(mask, mode="connected_components", min_area=1, max_instances=7)
    assert len(instances) == 7
    assert max(areas(instances)) > 24


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "boxes"}, "boxes"), ({"num_classes": 3}, "3"), ({"mask": np.zeros((3, 3), np.uint8)}, "bool H x W")],
)
def test_refusals(options, message):
    options = {"mask": blobs(), **options}
    with pytest.raises(ValueError, match=message):
        forgery_mask_to_instances(options.pop("mask"), **options)
