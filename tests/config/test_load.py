import pytest

from ddl_d2.data.datasets import load_config
from ddl_d2.errors import ConfigError
from tests.conftest import CONFIGS, ROOT

QUICK = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads(path):
    assert load_config(path, ["MODEL.DEVICE", "cpu"]).is_frozen()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.LEARNING_RATE", "1"], "SOLVER.LEARNING_RATE|LEARNING_RATE"),
        (["SOLVER.BASE_LR"], "pairs"),
        (["SOLVER.BASE_LR", "fast"], "BASE_LR|Type mismatch"),
        (["INPUT.INSTANCES", "boxes"], "INPUT.INSTANCES is 'boxes': it must be one of union, connected_components"),
        (
            ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "float16", "MODEL.DEVICE", "cpu"],
            "float16 needs a GPU",
        ),
    ],
)
def test_wrong_options_are_named(opts, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(QUICK, opts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL:\n  NO_SUCH_KEY: 1\n", "NO_SUCH_KEY"),
        ("MODEL: [1, 2", "expected|while parsing"),
        ("_BASE_: https://example.com/base.yaml\n", "network"),
        ("OUTPUT_DIR: !!python/object/apply:os.system ['touch hacked']\n", "python/object"),
        ("just words\n", "bad.yaml"),
    ],
)
def test_bad_files_are_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_missing_file():
    with pytest.raises(ConfigError, match="no such config file"):
        load_config("nowhere.yaml")
