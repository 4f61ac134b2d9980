import math

import pytest
import torch
import torch.nn.functional as F

from ddl_d2.modeling.losses import dice, sigmoid_bce
from ddl_d2.modeling.mask2former.criterion import SetCriterion, Targets
from ddl_d2.modeling.mask2former.matcher import HungarianMatcher
from ddl_d2.modeling.mask2former.query_decoder import QueryPredictions


def _criterion(deep_supervision: bool = True, num_points: int = 512, **weights) -> SetCriterion:
    weights = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0} | weights
    return SetCriterion(
        num_classes=1,
        matcher=HungarianMatcher(**weights, num_points=num_points),
        **weights,
        no_object_weight=0.1,
        num_points=num_points,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        deep_supervision=deep_supervision,
    )


def _predictions(batch: int = 2, queries: int = 4, sets: int = 3, seed: int = 0) -> QueryPredictions:
    g = torch.Generator().manual_seed(seed)
    return QueryPredictions(
        logits=[torch.randn(batch, queries, 2, generator=g).requires_grad_() for _ in range(sets)],
        mask_embeddings=[torch.randn(batch, queries, 8, generator=g).requires_grad_() for _ in range(sets)],
        mask_features=torch.randn(batch, 8, 16, 16, generator=g).requires_grad_(),
    )


def _target(count: int, name: str = "a", supervised: bool = True) -> Targets:
    masks = torch.zeros(count, 64, 64, dtype=torch.bool)
    for i in range(count):
        masks[i, 8 * i : 8 * i + 12, 10:40] = True
    return Targets(torch.zeros(count, dtype=torch.int64), masks, name, supervised)


def test_names_and_deep_supervision():
    losses = _criterion()(_predictions(), [_target(1), _target(0)])
    assert set(losses) == {f"loss_{k}{s}" for k in ("ce", "mask", "dice") for s in ("", "_0", "_1")}
    assert set(_criterion(deep_supervision=False)(_predictions(), [_target(1), _target(0)])) == {
        "loss_ce", "loss_mask", "loss_dice",
    }  # fmt: skip


def test_class_loss_by_hand():
    # One image, two queries, nothing forged, both say "forged" and "no object" equally: CE = log 2, weights cancel.
    predictions = _predictions(batch=1, queries=2, sets=1)
    predictions.logits[0] = torch.zeros(1, 2, 2)
    losses = _criterion()(predictions, [_target(0)])
    assert losses["loss_ce"].item() == pytest.approx(2 * math.log(2))


def test_class_loss_weights_no_object():
    # Query 0 matches (weight 1), query 1 is no object (weight 0.1).
    predictions = _predictions(batch=1, queries=2, sets=1)
    logits = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]])
    predictions.logits[0] = logits
    predictions.mask_embeddings[0] = torch.zeros(1, 2, 8)  # equal masks: the class decides
    losses = _criterion()(predictions, [_target(1)])
    ce = F.cross_entropy(logits[0], torch.tensor([0, 1]), reduction="none")
    assert losses["loss_ce"].item() == pytest.approx(2 * float(ce[0] + 0.1 * ce[1]) / 1.1)


@pytest.mark.parametrize("counts", [[1], [2, 0], [1, 3]])
def test_mask_losses_approach_those_of_full_masks(counts):
    # Without importance sampling and with many points, the sampled loss is the mean over a fine grid, but for the
    # outermost half cell: there point sampling fades to 0 (as published), where resizing repeats the border.
    predictions = _predictions(batch=len(counts), sets=1, seed=3)
    targets = [_target(c) for c in counts]
    criterion = _criterion(num_points=60_000)
    criterion.importance_sample_ratio = 0.0
    torch.manual_seed(0)
    losses = criterion(predictions, targets)

    torch.manual_seed(0)
    bce = sum_dice = 0.0
    matches = criterion.matcher(
        predictions.logits[0][None], predictions.mask_embeddings[0][None], predictions.mask_features, targets
    )
    for b, (target, (query, index)) in enumerate(zip(targets, matches, strict=True)):
        if not len(target.masks):
            continue
        masks = predictions.masks(0)[b]
        up = F.interpolate(masks[None], size=(256, 256), mode="bilinear", align_corners=False)[0].flatten(1)
        fine = F.interpolate(target.masks[None].float(), size=(256, 256), mode="bilinear")[0].flatten(1)
        bce += float(sigmoid_bce(up[query[0]].detach(), fine[index[0]]).sum())
        sum_dice += float(dice(up[query[0]].detach(), fine[index[0]]).sum())
    assert losses["loss_mask"].item() == pytest.approx(5 * bce / sum(counts), rel=0.05)
    assert losses["loss_dice"].item() == pytest.approx(5 * sum_dice / sum(counts), rel=0.05)


def test_a_batch_without_forgery_trains_and_reaches_every_input():
    predictions = _predictions()
    losses = _criterion()(predictions, [_target(0), _target(0)])
    assert losses["loss_mask"].item() == losses["loss_dice_0"].item() == 0
    sum(losses.values()).backward()
    for tensor in (*predictions.logits, *predictions.mask_embeddings, predictions.mask_features):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_only_matched_queries_get_a_mask_gradient():
    predictions = _predictions(batch=1, queries=4, sets=1)
    losses = _criterion()(predictions, [_target(1)])
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    touched = predictions.mask_embeddings[0].grad[0].abs().sum(dim=1) > 0
    assert touched.sum() == 1


def test_an_unsupervised_image_teaches_nothing():
    predictions = _predictions()
    losses = _criterion()(predictions, [_target(1), _target(0, supervised=False)])
    sum(losses.values()).backward()
    assert predictions.logits[-1].grad[0].abs().sum() > 0
    assert predictions.logits[-1].grad[1].abs().sum() == 0


def test_an_unsupervised_image_teaches_no_mask_either():
    """With authentic as a class, its "mask" covers the image: none of it is known."""
    predictions = _predictions(batch=1)
    losses = _criterion()(predictions, [_target(1, supervised=False)])
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
    sum(losses.values()).backward()
    assert predictions.mask_embeddings[-1].grad.abs().sum() == 0


def test_thin_masks_and_one_pixel():
    target = _target(2)
    target.masks[:] = False
    target.masks[0, 5, 5] = True
    target.masks[1, :, 63] = True
    losses = _criterion()(_predictions(batch=1), [target])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_losses_of_masks_can_be_chosen():
    """The weights stay those of mask, region and box; what is computed changes."""
    predictions, targets = _predictions(), [_target(2), _target(0)]
    constant = SetCriterion(
        num_classes=1,
        matcher=HungarianMatcher(class_weight=2.0, mask_weight=5.0, dice_weight=5.0, num_points=64),
        class_weight=2.0,
        mask_weight=3.0,
        dice_weight=7.0,
        no_object_weight=0.1,
        num_points=64,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        deep_supervision=True,
        mask_loss=lambda logits, wanted: torch.full((len(logits),), 2.0),
        region_loss=lambda logits, wanted: torch.full((len(logits),), 0.5),
        box_weight=4.0,
    )
    losses = constant(predictions, targets)
    assert set(losses) == {f"loss_{k}{s}" for k in ("ce", "mask", "dice", "box") for s in ("", "_0", "_1")}
    # Two matched masks over two targets: a mean.
    assert float(losses["loss_mask_0"]) == pytest.approx(3 * 2.0)
    assert float(losses["loss_dice"]) == pytest.approx(7 * 0.5)
    assert float(losses["loss_box"].detach()) > 0
    assert float(constant(predictions, [_target(0), _target(0)])["loss_box"].detach()) == 0


def test_boxes_are_those_of_the_matched_targets():
    """A query whose mask is the target's box loses nothing; the other target's would cost."""
    predictions = _predictions(batch=1, queries=2, sets=1)
    predictions.mask_features = torch.zeros(1, 8, 64, 64)
    targets = [_target(2)]
    for query in range(2):  # query 0 paints target 1 and query 1 target 0
        predictions.mask_features[0, query] = (targets[0].masks[1 - query].float() - 0.5) * 60
    predictions.mask_embeddings[0] = torch.eye(2, 8)[None]
    predictions.logits[0] = torch.zeros(1, 2, 2)
    criterion = _criterion()
    criterion.box_weight = 1.0
    assert float(criterion(predictions, targets)["loss_box"]) == pytest.approx(0, abs=1e-3)
