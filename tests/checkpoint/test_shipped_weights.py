"""The weights that ship: whole, small, of no machine, and alive."""

import re

import numpy as np
import pytest
from safetensors.torch import load_file

from ddl_d2.checkpoint.saving import read_metadata
from ddl_d2.checkpoint.shipped import digest, find_calibration
from ddl_d2.config.load import config_from_text
from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.errors import CheckpointError
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.face_swap import forged_face
from ddl_d2.inference.model import load_model
from ddl_d2.predictions.calibration import Calibration
from tests.conftest import ROOT

WEIGHTS = sorted((ROOT / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
class TestFile:
    def test_it_is_what_its_digest_says_and_small(self, path):
        assert read_metadata(path)["sha256"] == digest(load_file(path))
        assert path.stat().st_size <= 40e6

    def test_its_config_is_of_no_machine(self, path):
        text = read_metadata(path)["config"]
        assert not re.search(r"(^|[\s'\"])/[a-z]", text)
        cfg = config_from_text(text)
        assert not cfg.MODEL.WEIGHTS
        assert not cfg.DATASETS.SOURCES

    def test_the_card_names_it(self, path):
        assert path.name in (ROOT / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_sees_a_crude_forgery_and_where(astronaut, synthetic_face):
    """A face turned gray-green, shifted and softened scores above the photograph, and is marked."""
    image = np.ascontiguousarray(astronaut[20:230, 120:330])
    points = synthetic_face(center=(104.0, 95.0), width=95.0).landmarks.astype(np.float32)
    options = SwapOptions(
        part_prob=0, source_prob=1, recolor=2, soften_prob=1, sharpen_prob=0, ratios=(1.0,), match_prob=0
    )
    real, forged, soft = forged_face(image, points, Draw(np.random.default_rng(1)), options)
    model = load_model(
        ROOT / "weights" / "eyes_lite0.safetensors", device="cpu", opts=["INPUT.FACE_CROP.ENABLED", "False"]
    )
    before, after = model.predict([real, forged])
    assert before.fake_score < 0.5 < after.fake_score
    assert after.forgery_map[soft > 0.5].mean() > after.forgery_map[soft == 0].mean() + 0.3


class TestCalibration:
    """The calibration that comes along: for these weights, and as good as the pages say."""

    made = Calibration.load(ROOT / "weights/eyes_lite0_dfdc.json")

    def test_it_is_for_the_weights_that_ship_and_is_not_used_unless_named(self):
        pytest.importorskip("dlib")
        model = load_model(device="cpu", calibration="eyes_lite0_dfdc")
        assert model.calibration == self.made
        assert load_model(device="cpu").calibration is None

    def test_held_out_figures_reach_the_aim_and_are_those_of_the_page(self):
        held = self.made.held_out
        assert held["ece"] <= 0.04
        page = (ROOT / "docs/verdicts.md").read_text(encoding="utf-8")
        for name in ("false_alarms", "misses", "found", "inconclusive", "errors_among_decided"):
            value, low, high = (f"{100 * x:.1f}" for x in held[name])
            assert f"| {value} % [{low}, {high}] |" in page, name
        assert f"{held['cllr']:.3f} / {held['cllr_min']:.3f} / {held['devpav']:.3f}" in page
        assert f"| {held['ece']:.3f} ({held['ece_by_chance']:.3f}) |" in page
        for name in ("false_alarms", "misses"):
            assert held[name][1] <= 0.05 <= held[name][2], "the stated rate is within the limits"

    def test_an_unknown_name_lists_those_there_are(self):
        with pytest.raises(CheckpointError, match="eyes_lite0_dfdc"):
            find_calibration("no_such")
