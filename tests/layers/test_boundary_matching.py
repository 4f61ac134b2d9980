"""Sampling of proposals: positions by hand, and the fast path against a dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddl_d2.layers.boundary_matching import BoundaryMatching, sample_positions


def _dense(features, weight, bias, positions, *, double):
    """What the layer is: a matrix T×(N·D·T) of linear weights, then a convolution over the points."""
    rows, frames, points = positions.shape
    sampler = torch.zeros(frames, points, rows, frames, dtype=features.dtype)
    for (row, start, point), x in np.ndenumerate(positions):
        if np.isnan(x) or not 0 <= x <= frames - 1:
            continue
        low = int(np.floor(x))
        sampler[low, point, row, start] += 1 - (x - low)
        if x > low:
            sampler[low + 1, point, row, start] += x - low
        elif double:
            sampler[low, point, row, start] += 1
    sampled = torch.einsum("bct,tnds->bcnds", features, sampler)
    return F.conv3d(sampled, weight, bias)[:, :, 0]


def test_positions_by_hand():
    # From frame 4, 4 frames long, half of it as context: from 2 to 10 in four steps of 8/3.
    positions = sample_positions(16, [1, 4], 4, 0.5)
    assert positions.shape == (2, 16, 4)
    assert positions[1, 4] == pytest.approx([2, 2 + 8 / 3, 2 + 16 / 3, 10])
    # As published, the duration is taken for the end: from 4 to 4, all points alike.
    assert sample_positions(16, [1, 4], 4, 0.5, published=True)[1, 4].tolist() == [4, 4, 4, 4]
    # A proposal has to end before the last frame does.
    assert np.isnan(positions[1, 12]).all()
    assert not np.isnan(positions[1, 11]).any()


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(
    ("frames", "durations", "points", "extension"),
    [(7, [1, 2, 3], 3, 0.5), (13, [1, 4, 5, 11], 10, 0.25), (6, [5], 2, 1.0)],
)
def test_the_sum_of_rows_is_the_matrix(frames, durations, points, extension, published):
    torch.manual_seed(0)
    features = torch.randn(2, 5, frames, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, points, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64)
    layer = BoundaryMatching(
        frames=frames, durations=durations, points=points, extension=extension, published=published
    )
    found = layer(features.float(), weight.float(), bias.float())
    positions = sample_positions(frames, durations, points, extension, published=published)
    want = _dense(features, weight, bias, positions, double=published)
    torch.testing.assert_close(found, want.float(), atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(found.square().sum(), (features, weight))
    wanted = torch.autograd.grad(want.square().sum(), (features, weight))
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-3, rtol=1e-4)


def test_the_published_sampler(batfd_reference):
    golden = np.load(batfd_reference.folder / "s5_targets_and_nms.npz")
    for frames, points, rows in ((16, 4, 4), (32, 10, 8)):
        layer = BoundaryMatching(frames=frames, durations=list(range(1, rows + 1)), points=points, published=True)
        # One output channel for each point and frame picks the weight of that frame for that point.
        weight = torch.eye(points * frames).view(points, frames, points, frames).permute(0, 1, 3, 2)
        found = layer(torch.eye(frames)[None], weight.reshape(-1, frames, points, 1, 1), None)
        sampler = found[0].view(points, frames, rows, frames).permute(1, 0, 2, 3)
        np.testing.assert_allclose(sampler, golden[f"sampler/T{frames}_N{points}_D{rows}"], atol=1e-6)
