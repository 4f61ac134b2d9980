"""Predicting with an exported file, on one whose results a person can compute."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.errors import CheckpointError, ImageReadError, InputError
from ddl_d2.inference.onnx_predictor import OnnxPredictor
from ddl_d2.io.image import write_png
from tests.onnx_files import write_bright_is_fake


@pytest.fixture
def file(tmp_path):
    write_bright_is_fake(tmp_path / "bright.onnx")
    return tmp_path / "bright.onnx"


def test_images_of_several_sizes(file):
    half = np.zeros((4, 10, 3), np.uint8)
    half[:, 5:] = 255
    images = [half, np.full((2, 3, 3), 204, np.uint8), half[:, ::-1]]
    results = OnnxPredictor(file).predict(images)
    assert [result.fake_score for result in results] == pytest.approx([0.5, 0.8, 0.5])
    assert [result.verdict for result in results] == ["real", "fake", "real"]
    np.testing.assert_allclose(results[0].forgery_map, half[..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(results[2].forgery_map, half[:, ::-1, 0] / 255, atol=1e-6)
    # 4 x 5 pixels are forged, from column 5 on.
    assert [(region.box, region.area) for region in results[0].regions] == [((5, 0, 10, 4), 20)]


def test_files_and_what_cannot_be_read(file, tmp_path):
    write_png(tmp_path / "in" / "a.png", np.full((5, 5, 3), 51, np.uint8))
    (tmp_path / "in" / "b.jpg").write_bytes(b"no image")
    predictor = OnnxPredictor(file, threshold=0.1)
    first, second = predictor.predict_many(tmp_path / "in")
    assert (first.verdict, first.fake_score) == ("fake", pytest.approx(0.2))
    assert second.error is not None
    with pytest.raises(ImageReadError):
        predictor.predict(tmp_path / "in" / "b.jpg")


def test_bad_arguments(file, tmp_path):
    with pytest.raises(InputError, match="the threshold is 2"):
        OnnxPredictor(file, threshold=2.0)
    with pytest.raises(CheckpointError, match="not a readable ONNX file"):
        OnnxPredictor(tmp_path / "none.onnx")
