import pytest
import torch

from ddl_d2.modeling.postprocessing import map_instances, map_output, original_size, to_original
from ddl_d2.modeling.preprocessing import known_maps, normalized_batch, stretched_batch, stretched_maps, true_map


def test_images_are_normalized_before_they_are_padded():
    mean, std = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 2.0)
    rows = [
        {"image": torch.full((3, 2, 3), 104, dtype=torch.uint8)},
        {"image": torch.zeros(3, 4, 2, dtype=torch.uint8)},
    ]
    batch = normalized_batch(rows, mean, std, 4)
    assert batch.image_sizes == [(2, 3), (4, 2)]
    assert batch.tensor.shape == (2, 3, 4, 4)
    assert batch.tensor[0, 0].tolist() == [[2, 2, 2, 0], [2, 2, 2, 0], [0] * 4, [0] * 4]  # (104 - 100) / 2, padding 0


def test_maps_return_to_the_original():
    padded = torch.arange(16.0).view(4, 4)
    assert to_original(padded, (2, 3), (2, 3)).tolist() == [[0, 1, 2], [4, 5, 6]]
    constant = to_original(torch.full((4, 4), 0.25), (2, 3), (7, 5))
    assert constant.shape == (7, 5)
    assert torch.allclose(constant, torch.tensor(0.25))
    assert original_size({"height": 7, "width": 5, "image": torch.zeros(3, 2, 3)}) == (7, 5)
    assert original_size({"image": torch.zeros(3, 2, 3)}) == (2, 3)


#   .9 .9  0  0 .6
#    0  0  0  0 .6
#    0  0  0  0 .6
MAP = torch.zeros(3, 5)
MAP[0, :2] = 0.9
MAP[:, 4] = 0.6


@pytest.mark.parametrize(
    ("mode", "areas", "scores"),
    # (2 · 0.9 + 3 · 0.6) / 5 = 0.72
    [("union", [5], [0.72]), ("connected_components", [3, 2], [0.6, 0.9])],
)
def test_regions_become_instances(mode, areas, scores):
    instances = map_instances(MAP, threshold=0.5, mode=mode, limit=10)
    assert instances.image_size == (3, 5)
    assert instances.pred_masks.flatten(1).sum(1).tolist() == areas
    assert instances.scores.tolist() == pytest.approx(scores)
    assert instances.pred_classes.tolist() == [0] * len(areas)


def test_at_the_threshold_is_not_forged_and_nothing_forged_is_no_instance():
    for mode in ("union", "connected_components"):
        instances = map_instances(torch.full((3, 5), 0.5), threshold=0.5, mode=mode, limit=10)
        assert len(instances) == 0
        assert instances.pred_masks.shape == (0, 3, 5)


def test_the_largest_regions_are_kept():
    instances = map_instances(MAP, threshold=0.5, mode="connected_components", limit=1)
    assert instances.scores.tolist() == pytest.approx([0.6])


def test_regions_that_touch_at_a_corner_are_one():
    assert len(map_instances(torch.eye(3), threshold=0.5, mode="connected_components", limit=10)) == 1


def test_the_truth_is_the_soft_mask_or_else_the_mask():
    mask = torch.tensor([[True, False]])
    assert true_map({"forgery_mask": mask}).tolist() == [[1, 0]]
    assert true_map({"forgery_mask": mask, "soft_mask": torch.tensor([[0.75, 0.25]])}).tolist() == [[0.75, 0.25]]
    assert known_maps([{}, {"localization_valid": False}], torch.device("cpu")).tolist() == [True, False]


def test_images_are_stretched_to_one_size():
    mean, std = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 2.0)
    wide = torch.full((3, 2, 6), 104, dtype=torch.uint8)
    exact = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    batch = stretched_batch([{"image": wide}, {"image": exact}], (4, 4), mean, std)
    torch.testing.assert_close(batch[0], torch.full((3, 4, 4), 2.0))  # (104 - 100) / 2
    assert torch.equal(batch[1], (exact.float() - 100) / 2)  # not resampled
    # Two columns to one with a triangle of twice the width: 3/8 + 3/8 of the forged pair, 1/8 of each neighbor.
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, 2:4] = True
    shares = stretched_maps([{"forgery_mask": mask}], (4, 4), torch.device("cpu"))
    torch.testing.assert_close(shares[0], torch.tensor([[1 / 7, 3 / 4, 1 / 8, 0]]).expand(4, 4))


def test_a_map_becomes_an_output_at_the_original_size():
    row = {"height": 6, "width": 10}
    output = map_output(row, torch.full((4, 8), 0.75), (3, 5), threshold=0.5, mode="union", limit=5)
    assert output["forgery_map"].shape == (6, 10)
    assert output["instances"].pred_masks.all()
