"""What the published recipes say: values that a paper, or arithmetic on its data, fixes."""

from math import ceil

import pytest
import timm
from detectron2.modeling import build_model

from ddl_d2.config.load import list_configs, read_config
from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.mix_transformer import MIX_TRANSFORMERS
from tests.conftest import TINY

FAKES, IMAGES = 798_831, 954_931  # DDL-I's training set


def recipe(name: str):
    return read_config(name, ["MODEL.DEVICE", "cpu"])


@pytest.mark.parametrize("name", list_configs())
def test_pretrained_weights_are_named_with_their_tag(name):
    """An untagged name of timm is whatever weights its next release prefers (Swin-S: those of ImageNet-22k)."""
    model = recipe(name).MODEL
    encoders = (model.TIMM, model.MIX_TRANSFORMER, model.MESORCH.LOCAL, model.MESORCH.GLOBAL)
    names = [encoder.NAME for encoder in encoders if encoder.PRETRAINED and encoder.NAME not in MIX_TRANSFORMERS]
    if model.META_ARCHITECTURE == "BATFD":  # its encoder is named elsewhere
        encoder = model.BATFD.VIDEO_ENCODER
        names = [encoder.removeprefix("timm:")] if encoder.startswith("timm:") else []
    for encoder in names:
        assert encoder in timm.list_pretrained(encoder.partition(".")[0] + ".*")


@pytest.mark.parametrize("name", ["swin_tiny", "swin_small"])
def test_s1s_encoders_know_imagenet_1k_alone(name):
    assert recipe(f"ddl_i/mask2former_{name}").MODEL.TIMM.NAME.endswith(".ms_in1k")


def test_lfdl_sees_76_crops_on_each_of_8_gpus_for_30_epochs():
    solver = recipe("ddl_i/lfdl_xception").SOLVER
    assert solver.IMS_PER_BATCH == 8 * 76
    epoch = ceil(2 * FAKES / 608)  # as many real crops as fakes
    assert (epoch, solver.MAX_ITER, solver.CHECKPOINT_PERIOD) == (2628, 30 * epoch, epoch)


def test_mitl_sees_10_images_on_each_of_8_gpus_for_30_epochs():
    solver = recipe("ddl_i/mitl_mesorch").SOLVER
    assert solver.IMS_PER_BATCH == 8 * 10
    epoch = ceil(IMAGES / 80)
    assert (30 * epoch, 2 * epoch, epoch) == (solver.MAX_ITER, solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD)


def test_s5_is_trained_as_batfd_plus_was():
    """1e-5 for 4 clips, times 0.992 an epoch for 500 epochs of LAV-DF's 78,703 training clips, two GPUs of 4."""
    solver = recipe("lav_df/batfd_plus").SOLVER
    epoch = ceil(78_703 / 8)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.BETAS) == (8, 2e-5, [0.5, 0.9])
    assert (500 * epoch, epoch) == (solver.MAX_ITER, solver.CHECKPOINT_PERIOD)
    assert pytest.approx(2e-5 * 0.992**500, rel=0.01) == solver.BASE_LR_END


def test_precision_and_norms_are_the_published_ones():
    lfdl, mitl = recipe("ddl_i/lfdl_xception"), recipe("ddl_i/mitl_mesorch")
    assert lfdl.MODEL.SYNC_BN
    assert not lfdl.SOLVER.AMP.ENABLED
    assert not mitl.SOLVER.AMP.ENABLED


@pytest.mark.parametrize("name", [name for name in list_configs() if name.startswith("ddl_i/")])
def test_8_gpus_share_a_batch_evenly(name):
    assert recipe(name).SOLVER.IMS_PER_BATCH % 8 == 0


@pytest.mark.parametrize("name", ["ddl_i/mitl_mesorch", "ddl_i/mitl_mesorch_p", "ddl_i/mesorch"])
def test_mitl_asks_for_the_weights_of_its_mit(name):
    tiny = [*TINY, "MODEL.MESORCH.GLOBAL.PRETRAINED", recipe(name).MODEL.MESORCH.GLOBAL.PRETRAINED]
    with pytest.raises(ConfigError, match=r"GLOBAL.PRETRAINED is 'choose': .*\"hub\" .*non-commercial.* \"\" "):
        build_model(read_config(name, tiny))


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("segformer_b5", "MIX_TRANSFORMER"), ("sam_vit_base", "PLAIN_VIT"), ("iml_vit", "PLAIN_VIT")],
)
def test_segmentors_ask_for_weights_that_are_not_downloaded(name, encoder):
    key = f"MODEL.{encoder}.PRETRAINED"
    assert recipe(f"ddl_i/{name}").MODEL[encoder].PRETRAINED == "choose"
    with pytest.raises(ConfigError, match=f"{key} is 'choose'"):
        build_model(read_config(f"ddl_i/{name}", [*TINY, key, "choose"]))


def test_a_whole_checkpoint_is_a_choice_of_sams_weights():
    build_model(
        read_config("ddl_i/sam_vit_base", [*TINY, "MODEL.PLAIN_VIT.PRETRAINED", "choose", "MODEL.WEIGHTS", "x"])
    )


@pytest.mark.parametrize(
    ("stage", "on_a_gpu", "parts", "images"),
    [("cls", 48, 8, IMAGES), ("seg", 40, 3, IMAGES), ("joint", 32, 3, 238_733)],
)
def test_loupe_sees_each_image_once_in_each_stage(stage, on_a_gpu, parts, images):
    """The released code drops what is left of the last step; stage 3 is trained on the validation set."""
    solver = recipe(f"ddl_i/loupe_{stage}").SOLVER
    assert (on_a_gpu * parts, parts) == (solver.IMS_PER_BATCH, solver.ACCUMULATION_PARTS)
    assert abs(solver.MAX_ITER - images / solver.IMS_PER_BATCH) <= 1
    assert abs(solver.WARMUP_ITERS - 0.1 * solver.MAX_ITER) <= 0.5
    assert (solver.TAIL_START, solver.TAIL_SHAPE, solver.WARMUP_FACTOR) == (0.9, "cosine", 0)


@pytest.mark.parametrize(
    ("stage", "ablation", "key"),
    [("cls", "no_patches", "MODEL.LOUPE.PATCH_HEAD"), ("seg", "no_condition", "MODEL.LOUPE.CONDITION")],
)
def test_loupe_ablations_differ_in_one_key(stage, ablation, key):
    whole, without = recipe(f"ddl_i/loupe_{stage}"), recipe(f"ddl_i/loupe_{stage}_{ablation}")
    whole.defrost()
    whole.merge_from_list([key, False, "OUTPUT_DIR", without.OUTPUT_DIR])
    assert whole.dump() == without.dump()
