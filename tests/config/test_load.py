from pathlib import Path

import pytest

from ddl_d2.config.load import find_config, list_configs, read_config
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


NAME = "ddl_i/mask2former_swin_tiny"


@pytest.mark.parametrize("name", [NAME, f"{NAME}.yaml", f"configs/{NAME}.yaml", Path(NAME)], ids=str)
def test_a_config_is_found_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == ROOT / f"configs/{NAME}.yaml"
    assert read_config(name).MODEL.META_ARCHITECTURE == "ForgeryMask2Former"


def test_an_existing_file_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"{NAME}.yaml"
    file.parent.mkdir()
    file.write_text("MODEL: {META_ARCHITECTURE: SwinUNet}\n")
    assert read_config(f"{NAME}.yaml").MODEL.META_ARCHITECTURE == "SwinUNet"
    assert find_config(NAME) == ROOT / f"configs/{NAME}.yaml"


def test_all_names():
    assert [ROOT / f"configs/{name}.yaml" for name in list_configs()] == CONFIGS
    assert NAME in list_configs()


def test_configs_inside_the_package_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("ddl_d2.config.load._PACKAGE", tmp_path / "ddl_d2")
    for folder in ("configs", "ddl_d2/configs"):
        for name in ("Base-X.yaml", "set/x.yaml"):
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("_BASE_: ../Base-X.yaml\n" if name == "set/x.yaml" else f"OUTPUT_DIR: {folder}\n")
    assert list_configs() == ["set/x"]
    assert read_config("set/x").OUTPUT_DIR == "ddl_d2/configs"


@pytest.mark.parametrize("name", ["nowhere.yaml", "ddl_i", "Base-LFDL", "../configs/quickstart", ""])
def test_an_unknown_config(name):
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(name)


def test_close_names_are_told():
    with pytest.raises(ConfigError, match="did you mean .*ddl_i/mask2former_swin_tiny.*`ddl-d2 configs` lists all"):
        find_config("ddl_i/mask2former_swintiny.yaml")


def test_whole_numbers_are_taken_for_floats(tmp_path):
    cfg = load_config(QUICK, ["INPUT.JPEG_PROB", "1", "SOLVER.BASE_LR", "0", "MODEL.DEVICE", "cpu"])
    assert (cfg.INPUT.JPEG_PROB, cfg.SOLVER.BASE_LR) == (1.0, 0.0)
    (tmp_path / "own.yaml").write_text("INPUT: {JPEG_PROB: 1}\nMODEL: {DEVICE: cpu}\n")
    jpeg_prob = load_config(tmp_path / "own.yaml").INPUT.JPEG_PROB
    assert (jpeg_prob, type(jpeg_prob)) == (1.0, float)
    with pytest.raises(ConfigError, match="MAX_ITER|Type mismatch"):
        load_config(QUICK, ["SOLVER.MAX_ITER", "1.5"])


def test_a_folder_named_like_a_number():
    assert load_config(QUICK, ["OUTPUT_DIR", "2024_11_28", "MODEL.DEVICE", "cpu"]).OUTPUT_DIR == "2024_11_28"
    assert load_config(QUICK, ["OUTPUT_DIR", "1.0", "MODEL.DEVICE", "cpu"]).OUTPUT_DIR == "1.0"
