"""Boxes by the moments of a mask, and their loss."""

from __future__ import annotations

import pytest
import torch

from ddl_d2.modeling.mask2former.boxes import box_loss, moment_boxes


def test_a_filled_rectangle_is_its_own_box():
    masks = torch.zeros(2, 20, 40)
    masks[0, 5:10, 8:24] = 1  # rows 5/20 to 10/20, columns 8/40 to 24/40
    masks[1] = 0.25  # all of it, however sure
    boxes = moment_boxes(masks)
    assert boxes[0].tolist() == pytest.approx([0.2, 0.25, 0.6, 0.5], abs=1e-4)
    assert boxes[1].tolist() == pytest.approx([0, 0, 1, 1], abs=1e-4)


def test_an_empty_mask_has_a_finite_box_and_gradient():
    masks = torch.zeros(1, 8, 8, requires_grad=True)
    moment_boxes(masks).sum().backward()
    assert torch.isfinite(masks.grad).all()


def test_loss_by_hand():
    # The box moved by half of its width: |0.5 - 0| + |1.5 - 1| over four sides = 0.25; of two unit squares that share
    # half, intersection 0.5, union 1.5 = hull, so GIoU = 1/3.
    boxes, targets = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.5, 0.0, 1.5, 1.0]])
    assert box_loss(boxes, targets).item() == pytest.approx(0.25 + 2 / 3, abs=1e-5)
    assert box_loss(boxes, boxes).item() == pytest.approx(0, abs=1e-5)


def test_descent_moves_a_mask_towards_its_target():
    target = torch.zeros(1, 16, 16)
    target[0, 8:14, 8:14] = 1
    logits = torch.zeros(1, 16, 16, requires_grad=True)
    before = None
    for _ in range(200):
        loss = box_loss(moment_boxes(logits.sigmoid()), moment_boxes(target)).sum()
        before = loss.item() if before is None else before
        (grad,) = torch.autograd.grad(loss, logits)
        logits = (logits - 50 * grad).detach().requires_grad_()
    assert loss.item() < 0.6 * before
