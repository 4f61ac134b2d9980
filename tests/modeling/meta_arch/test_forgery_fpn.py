import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.errors import ConfigError

RECIPE = "release/eyes_lite0.yaml"


@pytest.fixture
def build(tiny_cfg):
    def made(*opts: str):
        torch.manual_seed(0)
        return build_model(tiny_cfg(*opts, config=RECIPE))

    return made


def _pairs(make_row):
    return [make_row(seed, fake=bool(seed % 2)) for seed in range(4)]


def test_losses_are_those_that_have_a_weight(build, make_row):
    rows = _pairs(make_row)
    assert set(build().train()(rows)) == {"loss_det", "loss_map", "loss_coarse"}
    bare = build("MODEL.FORGERY_FPN.COARSE_WEIGHT", "0.0", "MODEL.FORGERY_FPN.RANK_WEIGHT", "1.0")
    assert set(bare.train()(rows)) == {"loss_det", "loss_map", "loss_rank"}


def test_real_images_count_in_the_map_as_their_weight_says(build, make_row):
    """At weight 0 a real image's mask changes nothing; at 1 it does."""
    for weight, changes in (("0.0", False), ("1.0", True)):
        model = build("MODEL.FORGERY_FPN.REAL_MAP_WEIGHT", weight, "MODEL.FORGERY_FPN.DROPOUT", "0.0").train()
        rows = _pairs(make_row)
        before = model(rows)["loss_map"].item()
        rows[0]["soft_mask"] = torch.ones(64, 96)
        after = model(rows)["loss_map"].item()
        assert (before != after) == changes


def test_a_fake_without_a_known_mask_teaches_no_map(build, make_row):
    model = build().train()
    rows = _pairs(make_row)
    for row in rows:
        row["localization_valid"] = False
    losses = model(rows)
    assert losses["loss_map"].item() == losses["loss_coarse"].item() == 0
    assert losses["loss_det"].item() > 0


def test_every_parameter_learns(build, make_row):
    model = build().train()
    sum(model(_pairs(make_row)).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_outputs_have_the_size_of_the_original(build, make_row):
    row = make_row(0) | {"height": 130, "width": 190}
    (output,) = build().eval()([row])
    assert output["forgery_map"].shape == (130, 190)
    assert 0 <= output["fake_score"] <= 1
    assert output["forgery_map"].min() >= 0
    assert output["forgery_map"].max() <= 1


def test_half_a_model_is_refused(build):
    with pytest.raises(ConfigError, match="always detects and localizes"):
        build("MODEL.LOCALIZATION.ENABLED", "False")
