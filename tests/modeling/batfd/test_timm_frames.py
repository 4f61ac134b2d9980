"""The video encoder for CPUs: what it remembers, and what it takes from the clip's average."""

from __future__ import annotations

import pytest
import torch

from ddl_d2.modeling.batfd.timm_frames import TimmVideoEncoder, centered


def _encoder(remembered):
    torch.manual_seed(0)
    return TimmVideoEncoder(
        name="tf_efficientnet_lite0",
        pretrained="",
        pixel_mean=[127.5] * 3,
        pixel_std=[127.5] * 3,
        frames=6,
        features=8,
        remembered=remembered,
    ).eval()


def test_what_is_remembered_changes_nothing():
    video = torch.rand(2, 3, 6, 32, 32)
    video[1, :, 2] = video[0, :, 4]  # a frame that comes twice
    plain, mindful = _encoder(0), _encoder(100)
    want = plain(video)
    for _ in range(2):
        torch.testing.assert_close(mindful(video), want, atol=1e-5, rtol=1e-5)


def test_frames_that_were_seen_are_not_computed_again_and_old_ones_are_forgotten():
    encoder = _encoder(6)
    computed = []
    statistics = encoder._statistics
    encoder._statistics = lambda images: (computed.append(len(images)), statistics(images))[1]
    one, other = torch.rand(1, 3, 6, 32, 32), torch.rand(1, 3, 6, 32, 32)
    for video in (one, one, other, one):
        encoder(video)
    assert computed == [6, 6, 6]


def test_the_frozen_part_stays_as_it_is():
    encoder = _encoder(0).train()
    assert not encoder.backbone.training
    assert all(not parameter.requires_grad for parameter in encoder.backbone.parameters())
    encoder(torch.rand(2, 3, 6, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_centered_by_hand():
    # The mean of the two that are shown is 2; the third is padding.
    found = centered(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[[True], [True], [False]]]))
    assert found.ravel().tolist() == [-1, 1, 0]


def test_a_still_clip_moves_nowhere():
    still = torch.rand(1, 3, 1, 32, 32).expand(1, 3, 6, 32, 32)
    encoder = _encoder(0)
    seen = []
    encoder.norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    encoder(still)
    assert seen[0].abs().max() == pytest.approx(0, abs=1e-5)
