import math

import torch

from ddl_d2.modeling.losses import dice, pairwise_dice, pairwise_sigmoid_bce, sigmoid_bce


def test_values_by_hand():
    # sigmoid(0) = 1/2 everywhere; four points, two of them forged.
    logits, targets = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(sigmoid_bce(logits, targets), torch.tensor([math.log(2)]))
    # 1 - (2 · (1/2 + 1/2) + 1) / (2 + 2 + 1) = 1 - 3/5
    assert torch.allclose(dice(logits, targets), torch.tensor([0.4]))


def test_perfect_prediction_costs_nothing():
    targets = torch.tensor([[1.0, 0.0, 1.0]])
    logits = (targets * 2 - 1) * 50
    assert sigmoid_bce(logits, targets) < 1e-6
    assert dice(logits, targets) < 1e-6


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
