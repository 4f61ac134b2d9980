"""Names of earlier configs are read under those they have now, with a warning."""

import logging

import pytest
from detectron2.config import get_cfg

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.load import config_from_text, read_config
from ddl_d2.config.renamed import RENAMED_KEYS, RENAMED_VALUES
from ddl_d2.errors import ConfigError
from tests.conftest import ROOT

QUICK = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"


def test_new_names_exist_and_old_ones_do_not():
    cfg = get_cfg()
    add_ddl_config(cfg)
    for old, new in RENAMED_KEYS.items():
        *path, last = new.split(".")
        node = cfg
        for part in path:
            node = node[part]
        assert last in node
        assert old.rpartition(".")[2] not in node


def test_a_command_line(caplog):
    with caplog.at_level(logging.WARNING):
        cfg = read_config(QUICK, ["INPUT.AUGMENT.GREY_PROB", "0.25", "TEST.VIDEO_SCORE", "topk", "MODEL.DEVICE", "cpu"])
    assert (cfg.INPUT.AUGMENT.GRAY_PROB, cfg.TEST.VIDEO_SCORE) == (0.25, "top_frames")
    assert "INPUT.AUGMENT.GREY_PROB is now INPUT.AUGMENT.GRAY_PROB" in caplog.text


def test_a_file_and_a_checkpoints_text(tmp_path):
    text = "INPUT: {SELF_BLEND: {POST: {COLOUR_PROB: 0.125}}}\nTEST: {IMAGE_SCORE: topk, TILE: {SCORE: topk}}\n"
    (tmp_path / "old.yaml").write_text(text + "MODEL: {DEVICE: cpu}\n")
    for cfg in (read_config(tmp_path / "old.yaml"), config_from_text(text)):
        assert cfg.INPUT.SELF_BLEND.POST.COLOR_PROB == 0.125
        assert (cfg.TEST.IMAGE_SCORE, cfg.TEST.TILE.SCORE) == ("top_pixels", "top_tiles")


def test_a_number(tmp_path, caplog):
    (tmp_path / "old.yaml").write_text("TEST: {FP32_STRIDE: 16}\nMODEL: {DEVICE: cpu}\n")
    assert read_config(tmp_path / "old.yaml").TEST.FP32_STRIDE == 32
    assert "config value TEST.FP32_STRIDE 16 is now 32" in caplog.text
    for stride in (0, 32):
        assert stride == read_config(QUICK, ["TEST.FP32_STRIDE", str(stride), "MODEL.DEVICE", "cpu"]).TEST.FP32_STRIDE
    with pytest.raises(ConfigError, match="TEST.FP32_STRIDE is '5': it must be one of 0, 32"):
        read_config(QUICK, ["TEST.FP32_STRIDE", "5"])


@pytest.mark.parametrize(("key", "value"), RENAMED_VALUES)
def test_new_values_are_allowed(key, value):
    new = RENAMED_VALUES[key, value]
    assert new in str(read_config(QUICK, [key, new, "MODEL.DEVICE", "cpu"]).TEST)
