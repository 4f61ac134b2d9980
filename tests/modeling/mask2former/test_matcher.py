from itertools import permutations

import pytest
import torch

from ddl_d2.errors import NonFiniteError
from ddl_d2.modeling.mask2former.matcher import HungarianMatcher, Targets, sample_masks


def _matcher(**weights) -> HungarianMatcher:
    return HungarianMatcher(
        **{"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "num_points": 256} | weights
    )


def _scene(num_targets: int, num_queries: int = 5, num_sets: int = 3, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_sets, num_queries, 2, generator=g)
    embeddings = torch.randn(num_sets, num_queries, 8, generator=g)
    features = torch.randn(8, 6, 7, generator=g)
    masks = torch.zeros(num_targets, 24, 28, dtype=torch.bool)
    for t in range(num_targets):
        masks[t, 5 * t : 5 * t + 6, 2:20] = True
    return logits, embeddings, features, torch.zeros(num_targets, dtype=torch.int64), masks


def _match(matcher: HungarianMatcher, scene, image_id: str = "a"):
    """The assignment of one image."""
    logits, embeddings, features, classes, masks = scene
    return matcher(logits[:, None], embeddings[:, None], features[None], [Targets(classes, masks, image_id)])[0]


def test_nothing_forged_matches_nothing():
    query, target = _match(_matcher(), _scene(0))
    assert query.shape == target.shape == (3, 0)


@pytest.mark.parametrize("num_targets", [1, 2, 3])
def test_assignment_is_the_cheapest_of_all(num_targets):
    scene = _scene(num_targets)
    matcher = _matcher()
    torch.manual_seed(7)
    cost = matcher.costs(*scene)
    torch.manual_seed(7)
    query, target = _match(matcher, scene)
    for s in range(3):
        got = cost[s, query[s], target[s]].sum()
        best = min(sum(cost[s, q, t] for t, q in enumerate(p)) for p in permutations(range(5), num_targets))
        assert torch.allclose(got, best)


def test_more_targets_than_queries():
    query, target = _match(_matcher(), _scene(4, num_queries=2))
    assert query.shape == (3, 2)
    assert all(len(set(row.tolist())) == 2 for row in target)


def test_the_query_whose_mask_fits_wins():
    # One channel: +1 where forged, -1 elsewhere; query 1 multiplies it by 10, the others by -10.
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 8:24, 8:24] = True
    features = torch.nn.functional.interpolate(masks[None].float(), size=(8, 8))[0] * 2 - 1
    embeddings = torch.tensor([[-10.0], [10.0], [-10.0]])[None]
    query, _ = _match(_matcher(), (torch.zeros(1, 3, 2), embeddings, features, torch.tensor([0]), masks))
    assert query.tolist() == [[1]]


def test_a_cost_that_is_not_finite_names_the_image():
    logits, *rest = _scene(1)
    logits[1, 2, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="train/fake/x.png"):
        _match(_matcher(), (logits, *rest), image_id="train/fake/x.png")


def test_sampling_a_mask_at_cell_centers_returns_its_values():
    mask = torch.tensor([[[True, False], [False, True]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5]]])
    assert sample_masks(mask, points).tolist() == [[1.0, 0.0, 0.0, 1.0, 0.5]]
