import math

import pytest
import torch

from ddl_d2.modeling.losses import (
    dice,
    edge_bar,
    edge_bce,
    feature_similarity,
    local_diversity,
    map_bce,
    pairwise_dice,
    pairwise_sigmoid_bce,
    poly_focal,
    pool_valid,
    printed_similarity,
    sigmoid_bce,
    tversky,
)


def test_values_by_hand():
    # sigmoid(0) = 1/2 everywhere; four points, two of them forged.
    logits, targets = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(sigmoid_bce(logits, targets), torch.tensor([math.log(2)]))
    # 1 - (2 · (1/2 + 1/2) + 1) / (2 + 2 + 1) = 1 - 3/5
    assert torch.allclose(dice(logits, targets), torch.tensor([0.4]))


def test_poly_focal_by_hand():
    # p = 1/2: BCE is log 2, q = 1/2 whatever the label, so α·log 2/4 + 1/8 and (1 - α)·log 2/4 + 1/8; their mean.
    logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert poly_focal(logits, targets, alpha=0.8).item() == pytest.approx(math.log(2) / 8 + 1 / 8)
    assert poly_focal(logits[:, :1], targets[:, :1], alpha=0.8).item() == pytest.approx(0.2 * math.log(2) + 1 / 8)
    # No weight on easy ones, and no polynomial term: α times the cross-entropy.
    plain = poly_focal(logits[:, :1], targets[:, :1], alpha=0.8, gamma=0.0, epsilon=0.0)
    assert plain.item() == pytest.approx(0.8 * math.log(2))
    # A soft label of 1/4 at p = 1/2: w = 0.8/4 + 0.2·3/4 = 0.35.
    soft = poly_focal(torch.zeros(1, 1), torch.full((1, 1), 0.25), alpha=0.8)
    assert soft.item() == pytest.approx(0.35 * math.log(2) / 4 + 1 / 8)


def test_tversky_by_hand():
    # p = 1/2 of four, two forged: TP = FP = FN = 1: 1 - 1 / (1 + 0.3 + 0.7).
    logits, targets = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert tversky(logits, targets, alpha=0.3).item() == pytest.approx(0.5, abs=1e-5)
    # Missing all costs all, whatever α; marking all of them: TP = FP = 2, 1 - 2 / (2 + 2α).
    assert tversky(logits - 50, targets, alpha=0.3).item() == pytest.approx(1, abs=1e-4)
    assert tversky(logits + 50, targets, alpha=0.3).item() == pytest.approx(1 - 2 / 2.6, abs=1e-5)


def test_perfect_prediction_costs_nothing():
    targets = torch.tensor([[1.0, 0.0, 1.0]])
    logits = (targets * 2 - 1) * 50
    assert sigmoid_bce(logits, targets) < 1e-6
    assert dice(logits, targets) < 1e-6
    assert tversky(logits, targets, alpha=0.3) < 1e-6
    assert poly_focal(logits, targets, alpha=0.8) < 1e-6


def test_pairwise_forms_equal_the_losses_of_each_pair():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 33), (torch.rand(3, 33) > 0.5).float()
    for pairwise, single in ((pairwise_sigmoid_bce, sigmoid_bce), (pairwise_dice, dice)):
        table = pairwise(logits, targets)
        for q in range(5):
            for t in range(3):
                expected = single(logits[q : q + 1], targets[t : t + 1])[0]
                assert torch.allclose(table[q, t], expected, atol=1e-6)


def test_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]])
    targets = torch.tensor([[0.0, 1.0]])
    assert torch.isfinite(pairwise_sigmoid_bce(logits, targets)).all()
    assert torch.isfinite(sigmoid_bce(logits, targets)).all()


def test_map_loss_leaves_padding_out():
    logits = torch.tensor([[[0.0, 50.0], [99.0, -99.0]]])
    targets = torch.tensor([[[0.5, 1.0], [0.0, 1.0]]])
    valid = torch.tensor([[[True, True], [False, False]]])
    # ln 2 for the undecided pixel, 0 for the certain one; the two wrong ones are padding.
    assert map_bce(logits, targets, valid).tolist() == pytest.approx([math.log(2) / 2])


def test_pooling_averages_the_valid_pixels_of_a_cell():
    targets = torch.tensor([[[1.0, 0.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]]])
    valid = torch.tensor([[[True, True, True, False], [True, True, False, False]]])
    shares, cells = pool_valid(targets, valid, 2)
    assert shares.tolist() == [[[0.75, 0.5]]]
    assert cells.tolist() == [[[True, True]]]
    assert pool_valid(targets, torch.zeros_like(valid), 2)[1].tolist() == [[[False, False]]]


def test_local_diversity_of_features_by_hand():
    # Two equal directions and an opposite one; lengths do not matter. tau = 2: logits 2 · cosine.
    features = torch.tensor([[[1.0, 0.0], [5.0, 0.0], [-0.1, 0.0]]])
    similarity = feature_similarity(features, 2.0)
    assert torch.allclose(similarity[0], torch.tensor([[2.0, 2, -2], [2, 2, -2], [-2, -2, 2]]))
    # Places 0 and 1 authentic, place 2 forged: 1 - |g_i - g_j| is 1 where the cosine is 1, and 0 where it is -1.
    # All nine pairs are off by 1 - sigma(2) = sigma(-2).
    targets, valid = torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    wrong = 1 / (1 + math.exp(2))
    assert local_diversity(similarity, targets, valid).tolist() == pytest.approx([wrong])
    # All three called authentic: the four pairs with place 2 should be 1 and are sigma(-2): off by sigma(2).
    expected = (5 * wrong + 4 * (1 - wrong)) / 9
    assert local_diversity(similarity, torch.zeros(1, 3), valid).tolist() == pytest.approx([expected])
    # With place 2 as padding, only the four pairs of equals are left.
    valid[0, 2] = False
    assert local_diversity(similarity, torch.zeros(1, 3), valid).tolist() == pytest.approx([wrong])


def test_local_diversity_as_printed_by_hand_and_why_it_is_not_the_default():
    # p = 1/2 and 1 (logit 50): products 1/4, 1/2, 1.
    similarity = printed_similarity(torch.tensor([[0.0, 50.0]]))
    assert torch.allclose(similarity[0], torch.tensor([[0.25, 0.5], [0.5, 1.0]]))
    sigma = [1 / (1 + math.exp(-x)) for x in (0.25, 0.5, 1.0)]
    # Targets 0 and 1: pairs should be 1, 0, 0, 1.
    expected = ((1 - sigma[0]) + 2 * sigma[1] + (1 - sigma[2])) / 4
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert local_diversity(similarity, torch.tensor([[0.0, 1.0]]), valid).tolist() == pytest.approx([expected])
    best = printed_similarity(torch.tensor([[-50.0, 50.0]])).sigmoid()
    assert best.min() == 0.5
    assert best.max() < 0.74


def test_edge_bar_is_where_a_cross_holds_both_kinds():
    """7 × 7, the right three columns forged; a cross 3 wide reaches one pixel up, down, left and right."""
    forged = torch.zeros(1, 7, 7, dtype=torch.bool)
    forged[:, :, 4:] = True
    everywhere = torch.ones_like(forged)
    bar = edge_bar(forged, everywhere, 3)[0]
    assert bar.any(dim=0).tolist() == [False, False, False, True, True, False, False]
    assert bar.all(dim=0).tolist() == [False, False, False, True, True, False, False]
    corner = torch.zeros_like(forged)
    corner[:, 3, 3] = True
    # A cross, not a square: the four neighbors, not the four beside them.
    assert edge_bar(corner, everywhere, 3)[0].nonzero().tolist() == [[2, 3], [3, 2], [3, 3], [3, 4], [4, 3]]
    assert edge_bar(corner, everywhere, 7)[0].sum() == 13


def test_neither_a_border_nor_padding_is_an_edge():
    forged = torch.ones(2, 6, 8, dtype=torch.bool)
    valid = torch.ones_like(forged)
    assert not edge_bar(forged, valid, 7).any()
    assert not edge_bar(~forged, valid, 7).any()
    forged[:, 4:] = False  # padding, which a batch fills with 0
    valid[:, 4:] = False
    assert not edge_bar(forged, valid, 7).any()


def test_edge_loss_by_hand():
    """Logits ln 3 everywhere: P = 3/4. Of 4 × 4 pixels a forged column, and one beside it, are the bar."""
    logits = torch.full((1, 4, 4), math.log(3))
    targets = torch.zeros(1, 4, 4)
    targets[:, :, 0] = 1
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    want = 4 * (-math.log(0.75) - math.log(0.25)) / 16
    assert edge_bce(logits, targets, valid, 3).tolist() == pytest.approx([want])
