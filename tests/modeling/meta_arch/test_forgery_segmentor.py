import math

import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.errors import ConfigError, InputError
from ddl_d2.inference.gradcam import predict_with_heat_map

pytest.importorskip("transformers")

BASELINES = ["hrnet_w18", "upernet_swin_tiny", "segformer_b5", "sam_vit_base", "iml_vit"]
LITE = "two_cores/segmentor_efficientnet_lite0.yaml"
ALIKE = ("MODEL.SEGMENTOR.REAL_MAP_WEIGHT", "1.0")


@pytest.fixture
def build(tiny_cfg):
    def make(*opts, config=LITE):
        torch.manual_seed(0)
        return build_model(tiny_cfg(*opts, config=config))

    return make


@pytest.fixture
def says(monkeypatch):
    """`says(model, *logits)`: whatever it sees, the semantic head gives these logits, one for each class."""

    def force(model, *logits):
        def head(features):
            finest = features["res2"]
            values = torch.tensor(logits).view(1, -1, 1, 1)
            return values.expand(len(finest), -1, *finest.shape[-2:]) + 0 * finest.mean()

        monkeypatch.setattr(model.sem_seg_head, "forward", head)
        return model

    return force


def test_losses_by_hand(build, make_row, says):
    fake, real = make_row(0, size=(64, 64)), make_row(1, fake=False, size=(64, 64))  # a sixteenth is forged
    right, wrong = -math.log(0.75), -math.log(0.25)
    for model in (
        says(build(*ALIKE).train(), math.log(3)),  # P(forged) = 3/4
        says(build("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2", *ALIKE).train(), 1.0, 1.0 + math.log(3)),  # softmax: 1/4, 3/4
    ):
        assert model([real])["loss_map"].item() == pytest.approx(wrong)
        assert model([fake])["loss_map"].item() == pytest.approx((right + 15 * wrong) / 16)
        assert model([fake, real])["loss_map"].item() == pytest.approx((right + 31 * wrong) / 32)


def test_weights_of_losses(build, make_row, says):
    rows = [make_row(0), make_row(1, fake=False)]
    aux = ("MODEL.SEGMENTOR.AUXILIARY.IN_FEATURE", "res4")
    edge = ("MODEL.SEGMENTOR.EDGE_WEIGHT", "1.0")
    model = says(build(*aux, *edge).train(), math.log(3))
    assert set(model(rows)) == {"loss_map", "loss_aux", "loss_edge", "loss_det"}
    assert set(build().train()(rows)) == {"loss_map", "loss_det"}
    opts = {"MODEL.LOCALIZATION.LOSS_WEIGHT": "2.0", "MODEL.DETECTION.LOSS_WEIGHT": "0.5",
            "MODEL.SEGMENTOR.AUXILIARY.LOSS_WEIGHT": "3.0", "MODEL.SEGMENTOR.EDGE_WEIGHT": "5.0"}  # fmt: skip
    still = [*aux, "MODEL.SEGMENTOR.DROPOUT", "0.0", "MODEL.TIMM.DROP_PATH_RATE", "0.0"]
    ones = says(build(*still, *(word for key in opts for word in (key, "1.0"))).train(), math.log(3))(rows)
    weighted = says(build(*still, *(word for pair in opts.items() for word in pair)).train(), math.log(3))(rows)
    factors = {"loss_map": 2, "loss_aux": 2 * 3, "loss_edge": 2 * 5, "loss_det": 0.5}
    assert {name: (weighted[name] / ones[name]).item() for name in ones} == pytest.approx(factors)


def test_edge_loss_is_of_pixels_near_the_edge(build, make_row, says):
    """A band of rows 16 to 31 of 64 × 64; the cross, 3 wide, holds both kinds in rows 15, 16, 31, 32."""
    row = make_row(0, size=(64, 64))
    row["forgery_mask"] = torch.zeros(64, 64, dtype=torch.bool)
    row["forgery_mask"][16:32] = True
    opts = ("MODEL.SEGMENTOR.EDGE_WEIGHT", "20.0", "MODEL.SEGMENTOR.EDGE_WIDTH", "3")
    model = says(build(*opts).train(), math.log(3))
    right, wrong = -math.log(0.75), -math.log(0.25)
    assert model([row])["loss_edge"].item() == pytest.approx(20 * 64 * (2 * right + 2 * wrong) / 64**2)
    real = make_row(1, fake=False, size=(50, 70))  # padded below and to the right
    assert model([real])["loss_edge"].item() == 0


def test_images_of_unknown_mask_teach_only_their_class(build, make_row):
    still = ("MODEL.SEGMENTOR.DROPOUT", "0.0", "MODEL.TIMM.DROP_PATH_RATE", "0.0")
    model = build(*still, "MODEL.SEGMENTOR.EDGE_WEIGHT", "20.0").train()
    known, unknown = make_row(0), make_row(1)
    unknown["localization_valid"] = False
    before = model([known, unknown])
    unknown["forgery_mask"] = ~unknown["forgery_mask"]
    after = model([known, unknown])
    assert {name: after[name].item() for name in after} == pytest.approx({n: v.item() for n, v in before.items()})
    losses = model([unknown, unknown])
    assert losses["loss_map"].item() == losses["loss_edge"].item() == 0
    assert losses["loss_det"].item() > 0


def test_real_images_count_in_maps_as_their_weight_says(build, make_row, says):
    fake, real = make_row(0, size=(64, 64)), make_row(1, fake=False, size=(64, 64))  # a sixteenth is forged
    right, wrong = -math.log(0.75), -math.log(0.25)
    for weight in (0.0, 0.25, 1.0):
        model = says(build("MODEL.SEGMENTOR.REAL_MAP_WEIGHT", str(weight)).train(), math.log(3))
        expected = ((right + 15 * wrong) / 16 + weight * wrong) / (1 + weight)
        assert model([fake, real])["loss_map"].item() == pytest.approx(expected)


@pytest.mark.parametrize("config", [*(f"ddl_i/{name}.yaml" for name in BASELINES), LITE])
def test_outputs_do_not_depend_on_the_batch(build, make_row, config):
    model = build(config=config).eval()
    rows = [make_row(0, size=(64, 64)), make_row(1, size=(64, 128)), make_row(2, size=(40, 61))]
    for row, output in zip(rows, model(rows), strict=True):
        (alone,) = model([row])
        torch.testing.assert_close(output["forgery_map"], alone["forgery_map"], rtol=0, atol=1e-5)
        assert output["fake_score"] == pytest.approx(alone["fake_score"], abs=1e-5)


def test_without_an_image_head_the_map_gives_the_score(build, make_row, says):
    model = says(build("MODEL.DETECTION.ENABLED", "False", "TEST.IMAGE_SCORE", "mean").eval(), math.log(3))
    (output,) = model([make_row(0)])
    assert output["fake_score"] == pytest.approx(0.75)
    assert output["instances"].pred_masks.all()
    with pytest.raises(ConfigError, match="it has no image head"):
        model.image_logits({}, [])


def test_its_score_can_be_explained(build, make_row):
    assert predict_with_heat_map(build().eval(), make_row(0))["heat_map"].shape == (64, 96)


def test_an_image_larger_than_the_square_is_refused(build, make_row):
    model = build("MODEL.PLAIN_VIT.SQUARE_PAD", "96", config="ddl_i/iml_vit.yaml").eval()
    assert model([make_row(0, size=(96, 50))])[0]["forgery_map"].shape == (96, 50)
    assert model.batch([make_row(0, size=(70, 50))])[0].shape == (1, 3, 96, 96)
    with pytest.raises(InputError, match=r"big.png: 97 × 40 pixels are more than MODEL.PLAIN_VIT.SQUARE_PAD 96"):
        model([make_row(0, size=(40, 97), name="big.png")])


def test_upernet_says_that_it_cannot_learn_from_one_image(build, make_row):
    model = build(config="ddl_i/upernet_swin_tiny.yaml").train()
    with pytest.raises(ConfigError, match="SOLVER.IMS_PER_BATCH"):
        model([make_row(0)])
    widths = ("MODEL.SEGMENTOR.FUSE_DIM", "64", "MODEL.SEGMENTOR.AUXILIARY.CHANNELS", "64")
    opts = ("MODEL.SEM_SEG_HEAD.NORM", "GN", *widths)
    groups = build(*opts, config="ddl_i/upernet_swin_tiny.yaml").train()
    assert torch.isfinite(groups([make_row(0)])["loss_map"])


def test_sam_without_its_decoder(build, make_row):
    """The other reading: its encoder as a backbone under a convolutional head."""
    opts = ("MODEL.SEM_SEG_HEAD.NAME", "ConcatHead")
    model = build(*opts, config="ddl_i/sam_vit_base.yaml").train()
    sum(model([make_row(0), make_row(1, fake=False)]).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_only_what_the_single_mask_needs_of_sam_is_trained(build):
    head = build(config="ddl_i/sam_vit_base.yaml").sem_seg_head
    frozen = {name.split(".")[1] + name.split(".")[2] for name, p in head.named_parameters() if not p.requires_grad}
    assert {name for name in frozen if "hyper" in name} == {f"output_hypernetworks_mlps{i}" for i in (1, 2, 3)}
    assert not any(p.requires_grad for p in head.decoder.iou_prediction_head.parameters())
    assert head.decoder.mask_tokens.weight.requires_grad


@pytest.mark.parametrize(
    ("opts", "config", "message"),
    [
        (["MODEL.LOCALIZATION.ENABLED", "False"], LITE, "always localizes"),
        (["MODEL.SEGMENTOR.EDGE_WIDTH", "4"], LITE, "MODEL.SEGMENTOR.EDGE_WIDTH is 4"),
        (["MODEL.SEGMENTOR.AUXILIARY.IN_FEATURE", "res7"], LITE, "MODEL.SEGMENTOR.AUXILIARY.IN_FEATURE"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"], "ddl_i/sam_vit_base.yaml", "gives one class"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"], LITE, "MODEL.SEM_SEG_HEAD.NUM_CLASSES is '3'"),
    ],
)
def test_wrong_keys_are_named(build, opts, config, message):
    with pytest.raises(ConfigError, match=message):
        build(*opts, config=config)


# Learning rate and steps; the two large networks take a minute.
BY_HEART = [
    (LITE, 5e-3, 60),
    ("ddl_i/segformer_b5.yaml", 5e-3, 60),
    ("ddl_i/iml_vit.yaml", 1e-2, 60),
    ("ddl_i/sam_vit_base.yaml", 3e-3, 120),
    pytest.param("ddl_i/hrnet_w18.yaml", 5e-3, 60, marks=pytest.mark.slow),
    pytest.param("ddl_i/upernet_swin_tiny.yaml", 3e-3, 60, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("config", "rate", "steps"), BY_HEART)
def test_learns_eight_images_by_heart(build, config, rate, steps):
    """Also where something is forged P(forged) has to get above 0.5: rectifiers before the last layer may die there."""
    still = ["MODEL.SEGMENTOR.DROPOUT", "0.0", "MODEL.TIMM.DROP_PATH_RATE", "0.0", "MODEL.DETECTION.LOSS_WEIGHT", "1.0",
             "MODEL.MIX_TRANSFORMER.DROP_PATH_RATE", "0.0", "MODEL.PLAIN_VIT.DROP_PATH_RATE", "0.0"]  # fmt: skip
    model = build(*still, config=config).train()
    rows = [_square_on_noise(number, fake=number < 5) for number in range(8)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        sum(model(rows).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for row, output in zip(rows, model.eval()(rows), strict=True):
        forged, found = row["forgery_mask"], output["forgery_map"] > 0.5
        if row["is_fake"]:
            assert 2 * (forged & found).sum() / (forged.sum() + found.sum()) > 0.9
        else:
            assert found.float().mean() < 0.01
        assert (output["fake_score"] > 0.5) == bool(row["is_fake"])


def _square_on_noise(number: int, *, fake: bool) -> dict:
    """64 × 64 pixels of noise; of a fake, a brighter square of 24 × 24 at a place of its own is forged."""
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    if fake:
        mask[16:40, 4 * number + 4 : 4 * number + 28] = True
        image[:, mask] = image[:, mask] // 2 + 127
    return {"image": image, "is_fake": int(fake), "forgery_mask": mask}
