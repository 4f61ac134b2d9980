"""Keys and values that would change nothing, or fail only later, are refused by name."""

import pytest

from ddl_d2.config.load import read_config
from ddl_d2.errors import ConfigError


def refused(config: str, key: str, value: str) -> str:
    with pytest.raises(ConfigError) as error:
        read_config(config, ["MODEL.DEVICE", "cpu", key, value])
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.BIAS_LR_FACTOR", "2.0"),
        ("SOLVER.REFERENCE_WORLD_SIZE", "8"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"),
        ("DATALOADER.REPEAT_THRESHOLD", "0.1"),
        ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "2.0"),
    ],
)
def test_keys_of_detectron2_that_nothing_reads(key, value):
    assert f"{key} is " in refused("ddl_i/mask2former_swin_tiny", key, value)


@pytest.mark.parametrize("config", ["ddl_i/lfdl_xception", "ddl_i/mitl_mesorch", "ff/swin_unet_swin_tiny"])
def test_weights_of_losses_that_a_system_does_not_read(config):
    assert "does not read" in refused(config, "MODEL.DETECTION.LOSS_WEIGHT", "0.5")
    assert "does not read" in refused(config, "MODEL.LOCALIZATION.LOSS_WEIGHT", "0.5")
    read_config("ddl_i/mask2former_swin_tiny", ["MODEL.DEVICE", "cpu", "MODEL.DETECTION.LOSS_WEIGHT", "0.5"])


@pytest.mark.parametrize("value", ["-0.1", "much"])
def test_a_decay_is_a_number(value):
    assert "from 0 up" in refused("ddl_i/mask2former_swin_tiny", "SOLVER.WEIGHT_DECAY_BIAS", value)
