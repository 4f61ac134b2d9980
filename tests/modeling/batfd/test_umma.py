"""UMMAFormer's parts compute what the published code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ddl_d2.modeling.batfd.point_head import PointHead
from ddl_d2.modeling.batfd.umma import Pyramid, Reconstruction, reconstruction_loss, score_loss


class Published(nn.Module):
    """The parts under the names they have in UMMAFormer's checkpoints."""

    def __init__(self, channels, width, heads, steps):
        super().__init__()
        self.backbone = Pyramid(channels, width, heads, window=7, steps=steps)
        head = PointHead(width)
        self.neck, self.cls_head, self.reg_head = head.neck, head.cls_head, head.reg_head
        self.interpolator = Reconstruction(channels, width)
        self.head = [head]  # not under its own name


@pytest.fixture(scope="module")
def case(batfd_reference):
    golden = np.load(batfd_reference.folder / "s5_ummaformer_small.npz")
    model = Published(32, 16, 2, 192).eval()
    batfd_reference.fill_by_name(model.state_dict(), channel_norms=True)
    keys = [line.split(" ")[0] for line in (batfd_reference.folder / "s5_ummaformer_small.keys.txt").open()]
    return golden, model, keys


@torch.no_grad()
def test_the_published_outputs(case):
    golden, model, keys = case
    assert set(model.state_dict()) == set(keys)
    features = torch.from_numpy(golden["in/features"])
    mask = torch.arange(192) < torch.from_numpy(golden["in/lengths"])[:, None, None]
    features = features * mask
    rebuilt, score = model.interpolator(features, mask)
    np.testing.assert_allclose(rebuilt, golden["out/reconstruction"], atol=1e-5)
    np.testing.assert_allclose(score, golden["out/reconstruction_score"], atol=1e-5)
    levels, masks = model.backbone(features, rebuilt, mask)
    pyramid = model.neck(levels, masks)
    for i in range(6):
        assert (masks[i].numpy() == golden[f"mask_{i}"]).all()
        np.testing.assert_allclose(levels[i], golden[f"out/backbone_{i}"], atol=2e-5)
        np.testing.assert_allclose(pyramid[i], golden[f"out/fpn_{i}"], atol=2e-5)
    logits, offsets = model.head[0](levels, masks)
    want = np.concatenate([golden[f"out/logits_{i}"][..., 0] for i in range(6)], axis=1)
    np.testing.assert_allclose(logits, want, atol=1e-5)
    want = np.concatenate([golden[f"out/offsets_{i}"] for i in range(6)], axis=1)
    np.testing.assert_allclose(offsets, want, atol=1e-5)
    real = torch.tensor([0.0, 1.0, 0.0])
    np.testing.assert_allclose(reconstruction_loss(features, rebuilt, real), golden["loss/reco_loss"], rtol=1e-5)
    np.testing.assert_allclose(score_loss(score, real), golden["loss/reco_cls_loss"], rtol=1e-5)
