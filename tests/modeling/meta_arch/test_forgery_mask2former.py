import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from torch.utils._python_dispatch import TorchDispatchMode

from ddl_d2.modeling.meta_arch import forgery_mask2former as system


@pytest.fixture
def build(tiny_cfg):
    def make(*opts):
        torch.manual_seed(0)
        return build_model(tiny_cfg(*opts))

    return make


def test_both_halves_train_together_at_the_papers_weights(build, make_row):
    model = build("MODEL.DETECTION.LOSS_WEIGHT", "0.1").train()
    torch.manual_seed(1)
    losses = model([make_row(0), make_row(1, fake=False)])
    assert {"loss_det", "loss_ce", "loss_mask", "loss_dice", "loss_ce_0"} <= set(losses)
    model.detection_weight = 1.0
    torch.manual_seed(1)
    again = model([make_row(0), make_row(1, fake=False)])
    assert losses["loss_det"].item() == pytest.approx(0.1 * again["loss_det"].item(), rel=1e-4)


def test_detection_alone(build, make_row):
    model = build("MODEL.LOCALIZATION.ENABLED", "False")
    assert model.sem_seg_head is None
    losses = model.train()([make_row(0), make_row(1, fake=False)])
    assert set(losses) == {"loss_det"}
    losses["loss_det"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    (output,) = model.eval()([make_row(0)])
    assert "forgery_map" not in output
    assert 0 <= output["fake_score"] <= 1


@pytest.mark.parametrize("rule", ["mean", "max", "top_pixels"])
def test_localization_alone_scores_by_its_map(build, make_row, rule):
    model = build("MODEL.DETECTION.ENABLED", "False", "TEST.IMAGE_SCORE", rule)
    assert "loss_det" not in model.train()([make_row(0)])
    (output,) = model.eval()([make_row(0)])
    expected = {"mean": output["forgery_map"].mean(), "max": output["forgery_map"].max()}
    if rule in expected:
        assert output["fake_score"] == pytest.approx(float(expected[rule]))


def test_nothing_left_to_train_is_refused(build):
    with pytest.raises(ValueError, match="both False"):
        build("MODEL.DETECTION.ENABLED", "False", "MODEL.LOCALIZATION.ENABLED", "False")


def test_two_classes_learn_the_authentic_region_too(build, make_row):
    model = build("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2").train()
    row = make_row(0)
    forged = row["instances"].gt_masks.tensor
    row["instances"].gt_masks.tensor = torch.cat([~forged, forged])
    row["instances"] = type(row["instances"])(
        (64, 96), gt_classes=torch.tensor([0, 1]), gt_masks=row["instances"].gt_masks
    )
    assert all(torch.isfinite(loss) for loss in model([row]).values())
    (output,) = model.eval()([row])
    assert output["forgery_map"].shape == (64, 96)


def test_scores_do_not_depend_on_the_batch(build, make_row):
    model = build().eval()
    small, large = make_row(0, size=(64, 64)), make_row(1, size=(64, 128))
    with torch.no_grad():
        alone, together = model([small])[0], model([small, large])[0]
    # The backbone sees the padding at the border, so equal only nearly; a pooled padding would shift it far more.
    assert alone["fake_score"] == pytest.approx(together["fake_score"], abs=0.02)


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
    found = system._forgery_map(masks, forged, padded, unpadded, original)
    torch.testing.assert_close(found.double(), expected.clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("queries", "height", "width"), [(100, 16, 24), (1, 8, 8), (7, 17, 5), (20, 1, 9)])
def test_painting_in_bands_is_painting_at_once(monkeypatch, queries, height, width):
    torch.manual_seed(0)
    masks, forged = 6 * torch.randn(queries, height, width), torch.rand(queries) / queries
    padded = (4 * height, 4 * width)
    whole = system._painted_sum(masks, forged, padded)
    # The terms are the same bits; fp32 sums up to 100 of them, at most 1 in all, in an order of its own.
    torch.testing.assert_close(whole.double(), painted_at_once(masks, forged, padded), atol=1e-6, rtol=0)
    for rows in (1, 5, 7):  # of the masks in a band; 1 becomes 4
        monkeypatch.setattr(system, "_MAX_PAINTED", rows * 4 * padded[1] * queries)
        torch.testing.assert_close(system._painted_sum(masks, forged, padded), whole, atol=2e-7, rtol=0)


class LargestTensor(TorchDispatchMode):
    """The most scalars that any result has."""

    scalars = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.scalars = max(self.scalars, result.numel())
        return result


def test_no_tensor_has_all_queries_at_full_size(monkeypatch):
    monkeypatch.setattr(system, "_MAX_PAINTED", 1)
    masks, forged = torch.randn(100, 32, 64), torch.ones(100)
    with LargestTensor() as largest:
        system._forgery_map(masks, forged, (128, 256), (128, 256), (250, 300))
        assert largest.scalars == 100 * 24 * 256  # a band of 4 rows of the masks, 6 with its neighbors
        instances = system._instances(masks, forged, (128, 256), (128, 256), (250, 300), limit=20)
        assert largest.scalars == 20 * 250 * 300  # the result
    assert len(instances) == 20


def test_map_is_clipped_to_one():
    masks, forged = torch.full((4, 8, 8), 20.0), torch.ones(4)
    assert system._forgery_map(masks, forged, (32, 32), (32, 32), (32, 32)).max() == 1


def test_confident_queries_become_instances():
    masks = torch.full((3, 8, 8), -20.0)
    masks[0, 2:6, 2:6] = 20.0
    masks[1, :, :] = 20.0
    result = system._instances(masks, torch.tensor([0.9, 0.4, 0.8]), (32, 32), (32, 32), (64, 64), limit=20)
    assert len(result) == 1  # query 1 is not confident, query 2 paints nothing
    assert result.scores[0] == pytest.approx(0.9, abs=0.1)
    ys, xs = result.pred_masks[0].nonzero(as_tuple=True)
    assert (ys.min().item(), ys.max().item(), xs.min().item(), xs.max().item()) == (16, 47, 16, 47)


def test_a_non_finite_cost_names_the_image(build, make_row):
    model = build().train()
    with torch.no_grad():
        model.sem_seg_head.predictor.class_embed.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="the_image.png"):
        model([make_row(0, name="the_image.png")])
