"""Loupe's stages: what each trains, what the segmentor is told, and what is refused.

That it computes what the published one does: tests/modeling/loupe/test_reference.py.
"""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import CheckpointError, ConfigError
from ddl_d2.modeling.whole_batch import in_parts
from ddl_d2.solver.build import build_lr_scheduler
from ddl_d2.solver.freezing import freeze

STAGES = {
    "loupe_cls": {"classifier"},
    "loupe_cls_no_patches": {"classifier"},
    "loupe_seg": {"segmentor"},
    "loupe_seg_no_condition": {"segmentor"},
    "loupe_joint": {"backbone", "classifier", "segmentor"},
}


@pytest.fixture
def build(tiny_cfg):
    """`build(*options, stage)` -> the network of a stage, with what it freezes."""

    def built(*opts: str, stage: str = "loupe_joint"):
        torch.manual_seed(0)
        cfg = tiny_cfg(*opts, config=f"ddl_i/{stage}.yaml")
        model = build_model(cfg).train()
        freeze(model, cfg.SOLVER.FREEZE)
        return model

    return built


@pytest.fixture
def batch(make_row):
    return [make_row(0, fake=True, size=(65, 97)), make_row(1, fake=False, size=(96, 64))]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_its_parts_and_no_others(build, batch, stage):
    model = build(stage=stage)
    trained = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == STAGES[stage]
    reals = [batch[1], batch[1] | {"image_id": "2.png"}]
    for rows in (batch, reals):
        model.zero_grad()
        losses = model(rows)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None}
        assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    of_classifier, of_queries = {"loss_image", "loss_patch"}, {"loss_ce", "loss_mask", "loss_dice"}
    if "no_patches" in stage:
        of_classifier = {"loss_image"}
    assert of_classifier.isdisjoint(losses) == ("classifier" not in trained)
    assert of_queries.isdisjoint(losses) == ("segmentor" not in trained)
    if "classifier" in trained:
        assert of_classifier <= set(losses)


def test_a_frozen_encoder_computes_without_a_graph(build, batch):
    tokens = build(stage="loupe_cls").tokens(batch)
    assert not tokens.tokens.requires_grad
    assert not tokens.pooled.requires_grad


def test_tokens_are_all_that_is_read_of_images(build, batch):
    model = build()
    tokens = model.tokens(batch)
    without = [{key: value for key, value in row.items() if key != "image"} for row in batch]
    torch.manual_seed(0)
    from_tokens = model.losses_of(tokens, without)
    torch.manual_seed(0)
    assert from_tokens == model(batch)
    model.eval()
    with torch.no_grad():
        tokens = model.tokens(batch)
        (one, _), (other, _) = model.predictions_of(tokens, without), model(batch)
    assert torch.equal(one["forgery_map"], other["forgery_map"])


def test_losses_of_two_parts_are_those_of_the_batch(build, make_row):
    """One part has two fakes and one of unknown mask, the other none: both divide by the counts of the whole."""
    rows = [make_row(i, fake=i < 2) for i in range(4)]
    rows[1]["localization_valid"] = False
    model = build().eval()  # no batch statistics; losses all the same
    torch.manual_seed(0)
    whole = model.losses(rows)
    parts = dict.fromkeys(whole, 0.0)
    with in_parts(rows, 2) as halves:
        for half in halves:
            for name, loss in model.losses(half).items():
                parts[name] += float(loss.detach()) / 2
    for name in ("loss_image", "loss_patch", "loss_ce"):
        assert parts[name] == pytest.approx(float(whole[name].detach()), rel=1e-4), name


def test_images_of_unknown_mask_teach_the_class_alone(build, make_row):
    model = build().eval()
    known, unknown = make_row(0), make_row(1) | {"localization_valid": False}
    one, both = model.losses([known]), model.losses([known, unknown])
    assert float(one["loss_patch"].detach()) == pytest.approx(float(both["loss_patch"].detach()), rel=1e-5)
    assert float(one["loss_image"].detach()) != pytest.approx(float(both["loss_image"].detach()), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("told", ["score", "fake", "truth"])
def test_what_the_segmentor_is_told_in_testing(build, batch, told):
    model = build("MODEL.LOUPE.CONDITION_TEST", told).eval()
    tokens = model.tokens(batch)
    scores = model.classifier(tokens).image.sigmoid()
    wanted = {"score": scores, "fake": torch.ones(2), "truth": torch.tensor([1.0, 0.0])}[told]
    queries = model.segmentor(tokens, wanted)
    got = model.predictions_of(tokens, batch)
    for row, masks, logits, output in zip(batch, queries.masks(), queries.logits[-1], got, strict=True):
        assert output["forgery_map"].shape == (row["height"], row["width"])
        painted = (masks.sigmoid() * logits.softmax(-1)[:, :1, None]).sum(0)
        assert float(output["forgery_map"].mean()) == pytest.approx(float(painted.clamp(max=1).mean()), abs=0.02)
    unlabeled = [{key: value for key, value in row.items() if key != "is_fake"} for row in batch]
    if told == "truth":
        with pytest.raises(ConfigError, match="CONDITION_TEST is 'truth', and an image has no label"):
            model(unlabeled)
    else:
        model(unlabeled)


def test_the_condition_changes_the_map_unless_there_is_none(build, batch):
    for stage, changes in (("loupe_seg", True), ("loupe_seg_no_condition", False)):
        model = build(stage=stage).eval()
        with torch.no_grad():
            tokens = model.tokens(batch)
            real, fake = (model.segmentor(tokens, torch.full((2,), y)).logits[-1] for y in (0.0, 1.0))
        assert torch.equal(real, fake) != changes


def test_training_may_be_told_the_score_without_teaching_the_classifier_by_it(build, batch):
    model = build("MODEL.LOUPE.CONDITION_TRAIN", "score", "MODEL.DETECTION.LOSS_WEIGHT", "0.0")
    sum(model(batch).values()).backward()
    assert all(p.grad.abs().sum() == 0 for p in model.classifier.parameters())


def test_losses_in_bfloat16_are_near_those_in_fp32(build, batch):
    """What is multiplied to small numbers, (1 - q)^3 and the sums of Tversky, is so in fp32."""
    model = build().eval()
    torch.manual_seed(0)
    exact = model.losses(batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.losses(batch)
    for name in ("loss_image", "loss_patch", "loss_ce_0"):
        assert rough[name].dtype == torch.float32
        assert float(rough[name].detach()) == pytest.approx(float(exact[name].detach()), rel=0.02), name


def test_without_a_segmentor_the_patches_are_the_map(build, batch):
    model = build(stage="loupe_cls").eval()
    patches = model.pseudo_labels(model.tokens(batch)).masks
    output = model(batch)[0]
    assert patches.shape == (2, 4, 4)
    # A corner's pixel is its patch: nothing lies beyond to be mixed in.
    assert float(output["forgery_map"][0, 0]) == pytest.approx(float(patches[0, 0, 0]), abs=1e-5)
    blind = build(stage="loupe_cls_no_patches").eval()
    assert "forgery_map" not in blind(batch)[0]
    with pytest.raises(ConfigError, match="MODEL.LOUPE.PATCH_HEAD is False"):
        blind.pseudo_labels(blind.tokens(batch))
    with pytest.raises(ConfigError, match="MODEL.LOCALIZATION.ENABLED is False"):
        blind.segmentation_losses(blind.tokens(batch), torch.ones(2), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.DETECTION.ENABLED", "False"], "Loupe always classifies"),
        (["MODEL.LOUPE.MAP_SIZE", "40"], "MAP_SIZE is 40: masks have a side of 16"),
        (["MODEL.LOUPE.INPUT_SIZE", "60"], "INPUT_SIZE is 60: .* a multiple of 16"),
    ],
)
def test_impossible_settings(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build(*options)


def _trainer(tiny_cfg, tiny_set, folder, stage, *opts):
    folder.mkdir()
    cfg = tiny_cfg(
        "DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(folder), "SOLVER.IMS_PER_BATCH", "2",
        "SOLVER.MAX_ITER", "1", "SOLVER.WARMUP_ITERS", "0", "TEST.EVAL_PERIOD", "0", "SEED", "1", *opts,
        config=f"two_cores/{stage}.yaml",
    )  # fmt: skip
    cfg.freeze()
    return ForgeryTrainer(cfg)


def test_a_stage_starts_from_the_file_of_the_one_before(tiny_cfg, tiny_set, tmp_path):
    first = _trainer(tiny_cfg, tiny_set, tmp_path / "cls", "loupe_cls")
    first.resume_or_load(resume=False)
    first.train()
    weights = str(tmp_path / "cls" / "model_final.safetensors")

    lacking = _trainer(tiny_cfg, tiny_set, tmp_path / "lacking", "loupe_seg")
    with pytest.raises(CheckpointError, match=r"keeps classifier as it is, but MODEL.WEIGHTS is empty.*Set MODEL.WEI"):
        lacking.resume_or_load(resume=False)

    larger = ["MODEL.LOUPE.INPUT_SIZE", "96", "MODEL.LOUPE.MAP_SIZE", "96"]
    other = _trainer(tiny_cfg, tiny_set, tmp_path / "other", "loupe_seg", "MODEL.WEIGHTS", weights, *larger)
    with pytest.raises(CheckpointError, match=r"keeps classifier.*fusion.weight \(file \(1, 17\), model \(1, 37\)\)"):
        other.resume_or_load(resume=False)

    second = _trainer(tiny_cfg, tiny_set, tmp_path / "seg", "loupe_seg", "MODEL.WEIGHTS", weights)
    second.resume_or_load(resume=False)
    before = {name: value.clone() for name, value in second.model.state_dict().items()}
    assert all(
        torch.equal(value, first.model.state_dict()[name]) for name, value in before.items() if "segmentor" not in name
    )
    second.train()
    changed = {
        name.partition(".")[0]
        for name, value in second.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"segmentor"}


def test_the_schedule_is_the_published_one(tiny_cfg):
    """Shares of the base rate at some of 200 steps (shared/specs/s4_loupe.md, 7.4)."""
    cfg = tiny_cfg("SOLVER.MAX_ITER", "200", "SOLVER.WARMUP_ITERS", "20", config="ddl_i/loupe_cls.yaml")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    published = {0: 0, 10: 0.5, 20: 1, 179: 1, 185: 0.853553, 190: 0.5, 195: 0.146447, 199: 0.006156}
    assert {step: rates[step] for step in published} == pytest.approx(published, abs=1e-6)
