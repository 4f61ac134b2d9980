import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ddl_d2.modeling.mask2former import painting


def painted_at_once(masks, forged, padded):
    """The sum over queries as it is written: all of them painted, in fp64."""
    up = F.interpolate(masks[None].double(), size=padded, mode="bilinear", align_corners=False)[0].sigmoid()
    return (forged.double()[:, None, None] * up).sum(0)


def test_map_is_the_sum_over_queries():
    torch.manual_seed(0)
    masks, forged = torch.randn(5, 8, 12), torch.rand(5) * 0.3
    padded, unpadded, original = (32, 48), (30, 40), (61, 79)
    expected = painted_at_once(masks, forged, padded)[:30, :40]
    expected = F.interpolate(expected[None, None], size=original, mode="bilinear", align_corners=False)[0, 0]
    found = painting.forgery_map(masks, forged, padded, unpadded, original)
    torch.testing.assert_close(found.double(), expected.clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("queries", "height", "width"), [(100, 16, 24), (1, 8, 8), (7, 17, 5), (20, 1, 9)])
def test_painting_in_bands_is_painting_at_once(monkeypatch, queries, height, width):
    torch.manual_seed(0)
    masks, forged = 6 * torch.randn(queries, height, width), torch.rand(queries) / queries
    padded = (4 * height, 4 * width)
    whole = painting.painted_sum(masks, forged, padded)
    # The terms are the same bits; fp32 sums up to 100 of them, at most 1 in all, in an order of its own.
    torch.testing.assert_close(whole.double(), painted_at_once(masks, forged, padded), atol=1e-6, rtol=0)
    for rows in (1, 5, 7):  # of the masks in a band; 1 becomes 4
        monkeypatch.setattr(painting, "_MAX_PAINTED", rows * 4 * padded[1] * queries)
        torch.testing.assert_close(painting.painted_sum(masks, forged, padded), whole, atol=2e-7, rtol=0)


class LargestTensor(TorchDispatchMode):
    """The most scalars that any result has."""

    scalars = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.scalars = max(self.scalars, result.numel())
        return result


def test_no_tensor_has_all_queries_at_full_size(monkeypatch):
    monkeypatch.setattr(painting, "_MAX_PAINTED", 1)
    masks, forged = torch.randn(100, 32, 64), torch.ones(100)
    with LargestTensor() as largest:
        painting.forgery_map(masks, forged, (128, 256), (128, 256), (250, 300))
        assert largest.scalars == 100 * 24 * 256  # a band of 4 rows of the masks, 6 with its neighbors
        instances = painting.query_instances(masks, forged, (128, 256), (128, 256), (250, 300), limit=20)
        assert largest.scalars == 20 * 250 * 300  # the result
    assert len(instances) == 20


def test_map_is_clipped_to_one():
    masks, forged = torch.full((4, 8, 8), 20.0), torch.ones(4)
    assert painting.forgery_map(masks, forged, (32, 32), (32, 32), (32, 32)).max() == 1


@pytest.mark.parametrize(
    ("authentic", "forged", "expected"),
    [
        (0.40, 0.45, 0.45 / 0.85),  # argmax: forged, though the sum is below one half
        (0.9, 0.6, 0.6 / 1.5),  # argmax: authentic, though the sum is above it
        (0.0, 0.0, 0.0),
        (0.0, 1e-3, 1.0),
    ],
)
def test_two_classes_are_weighed_against_each_other(authentic, forged, expected):
    """Both queries paint everywhere: S_f is p(forged) of the one, S_a is p(authentic) of the other."""
    masks, sizes = torch.full((2, 8, 8), 20.0), ((32, 32), (32, 32), (32, 32))
    p_forged, p_authentic = torch.tensor([0.0, forged]), torch.tensor([authentic, 0.0])
    found = painting.forgery_map(masks, p_forged, *sizes, authentic=p_authentic)
    torch.testing.assert_close(found, torch.full((32, 32), expected), atol=1e-6, rtol=0)
    if forged > 0:
        assert bool((found > 0.5).all()) == (forged > authentic)


def test_sums_of_both_classes_are_resized_before_they_are_compared():
    torch.manual_seed(0)
    masks, forged, authentic = torch.randn(5, 8, 12), torch.rand(5), torch.rand(5)
    padded, unpadded, original = (32, 48), (30, 40), (61, 79)

    def resized(weights):
        painted = painted_at_once(masks, weights, padded)[None, None, :30, :40]
        return F.interpolate(painted, size=original, mode="bilinear", align_corners=False)[0, 0]

    s_f, s_a = resized(forged), resized(authentic)
    found = painting.forgery_map(masks, forged, padded, unpadded, original, authentic=authentic)
    torch.testing.assert_close(found.double(), s_f / (s_f + s_a), atol=1e-5, rtol=0)


def test_a_threshold_cuts_the_masks_of_instances():
    """A ramp of probabilities 0.1, ..., 0.8 from left to right, each 4 pixels wide; interpolation moves a border by
    less than its cell."""
    masks = torch.logit(torch.arange(1, 9) / 10).expand(1, 8, 8).contiguous()
    sizes = ((32, 32), (32, 32), (32, 32))
    widths = []
    for threshold in (0.25, 0.5, 0.75):
        (mask,) = painting.query_instances(masks, torch.ones(1), *sizes, 20, threshold=threshold).pred_masks
        widths.append(int(mask[0].sum()))
    assert widths == pytest.approx([24, 14, 4], abs=2)


def test_confident_queries_become_instances():
    masks = torch.full((3, 8, 8), -20.0)
    masks[0, 2:6, 2:6] = 20.0
    masks[1, :, :] = 20.0
    result = painting.query_instances(masks, torch.tensor([0.9, 0.4, 0.8]), (32, 32), (32, 32), (64, 64), limit=20)
    assert len(result) == 1  # query 1 is not confident, query 2 paints nothing
    assert result.scores[0] == pytest.approx(0.9, abs=0.1)
    ys, xs = result.pred_masks[0].nonzero(as_tuple=True)
    assert (ys.min().item(), ys.max().item(), xs.min().item(), xs.max().item()) == (16, 47, 16, 47)
