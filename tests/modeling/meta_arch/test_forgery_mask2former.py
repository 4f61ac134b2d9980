import pytest
import torch
from detectron2.modeling import build_model


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


def test_with_two_classes_the_map_is_forged_against_authentic(build, make_row):
    """Class logits of all queries (authentic, forged, nothing): p(forged) is p(authentic) · e, so the map e / (1 + e)
    wherever anything is painted."""
    model = build("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2").eval()
    with torch.no_grad():
        model.sem_seg_head.predictor.class_embed.weight.zero_()
        model.sem_seg_head.predictor.class_embed.bias.copy_(torch.tensor([-4.0, -3.0, 0.0]))
    (output,) = model([make_row(0)])
    torch.testing.assert_close(output["forgery_map"], torch.full((64, 96), 0.7311), atol=1e-3, rtol=0)


def test_instances_honor_the_threshold_of_maps(build, make_row):
    low, high = build("TEST.MAP_THRESHOLD", "0.0").eval(), build("TEST.MAP_THRESHOLD", "1.0").eval()
    for model in (low, high):
        with torch.no_grad():
            model.sem_seg_head.predictor.class_embed.bias.copy_(torch.tensor([20.0, 0.0]))  # all are confident
    masks = low([make_row(0)])[0]["instances"].pred_masks
    assert len(masks)
    assert masks.all()  # every probability is above 0
    assert len(high([make_row(0)])[0]["instances"]) == 0  # and none above 1


def test_scores_do_not_depend_on_the_batch(build, make_row):
    model = build().eval()
    small, large = make_row(0, size=(64, 64)), make_row(1, size=(64, 128))
    with torch.no_grad():
        alone, together = model([small])[0], model([small, large])[0]
    # The backbone sees the padding at the border, so equal only nearly; a pooled padding would shift it far more.
    assert alone["fake_score"] == pytest.approx(together["fake_score"], abs=0.02)


def test_a_non_finite_cost_names_the_image(build, make_row):
    model = build().train()
    with torch.no_grad():
        model.sem_seg_head.predictor.class_embed.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="the_image.png"):
        model([make_row(0, name="the_image.png")])
