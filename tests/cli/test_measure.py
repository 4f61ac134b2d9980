import json

import numpy as np
import pytest
from detectron2.modeling import build_model

from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli.measure import Scored, as_table, degraded, figures_of, main
from ddl_d2.io.image import read_image

RECIPE = "quickstart/mask2former_efficientnet_lite0"


def test_figures_by_hand():
    scored = [Scored(0, 0.1, "real", np.nan), Scored(0, 0.6, "fake", np.nan)]
    scored += [Scored(1, 0.7, "fake", 0.5), Scored(1, 0.4, "real", np.nan)]
    figures = figures_of(scored)
    assert (figures["fakes"], figures["reals"]) == (2, 2)
    assert figures["auc"][0] == 0.75
    assert figures["f1"][0] == 0.5
    assert figures["found"][0] == figures["false_alarms"][0] == 0.5


def test_real_images_alone_have_false_alarms_only():
    figures = figures_of([Scored(0, 0.9, "fake", np.nan), Scored(0, 0.1, "no face found", np.nan)])
    assert figures["no_face"] == 1
    assert set(figures) == {"fakes", "reals", "no_face", "false_alarms"}
    assert "50.0 %" in as_table({"portraits": figures})


def test_the_command_writes_table_and_json(tiny_cfg, tiny_set, tmp_path, capsys):
    cfg = tiny_cfg()
    save_tensors(str(tmp_path / "w.safetensors"), build_model(cfg).state_dict(), config=cfg.dump())
    words = ["--weights", str(tmp_path / "w.safetensors"), "--labeled", f"tiny={tiny_set}/valid"]
    words += ["--real", f"reals={tiny_set}/train/real", "--output", str(tmp_path / "figures.md")]
    assert main(words) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["tiny"]["fakes"], figures["tiny"]["reals"], figures["reals"]["reals"]) == (3, 3, 4)
    assert 0 <= figures["tiny"]["f1"][0] <= 1
    assert (tmp_path / "figures.md").read_text() in capsys.readouterr().out


def test_nothing_to_measure_is_said(capsys):
    with pytest.raises(SystemExit):
        main(["--weights", "x.safetensors"])
    assert "--labeled or --real" in capsys.readouterr().err


def test_degrading_keeps_the_size_and_without_a_wish_every_pixel(tiny_set):
    path = tiny_set / "valid/real/0.png"
    image = read_image(path)
    np.testing.assert_array_equal(degraded(path, longest=None, quality=None), image)
    small = degraded(path, longest=20, quality=None)
    assert small.shape == image.shape
    assert small.std() < 0.6 * image.std()
    assert (degraded(path, longest=None, quality=20) != image).any()
