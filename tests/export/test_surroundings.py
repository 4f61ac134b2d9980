"""What surrounds a network in an ONNX file does what the project's own code does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.export.surroundings import FAKE, FORGED, SIZES, Surroundings
from ddl_d2.modeling.heads import score_from_map
from ddl_d2.modeling.postprocessing import to_original
from ddl_d2.modeling.preprocessing import normalized_batch, stretched_batch

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PLAIN = Surroundings(
    min_size=32,
    max_size=60,
    mean=_MEAN,
    std=_STD,
    divisibility=32,
    has_score=False,
    has_authentic=False,
    image_score="max",
)


def _run(graph, inputs):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)


def _image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Shrunk by its shorter side, by its longer side, so far that float32 rounds a sum to the next gray level (with these
# seeds), enlarged, left as it is.
@pytest.mark.parametrize(
    ("size", "seed"),
    [((97, 131), 0), ((50, 200), 0), ((131, 200), 3), ((300, 400), 8), ((17, 23), 0), ((32, 45), 0), ((1, 3), 0)],
)
@pytest.mark.parametrize("min_size", [32, 0])
def test_an_image_becomes_the_batch_of_the_mapper(size, seed, min_size):
    image = _image(*size, seed)
    batch, sizes, original = _run(replace(PLAIN, min_size=min_size).before(), {"image": image[None]})
    pixels = ResizeToFit(min_size, 60).get_transform(image).apply_image(image)
    row = {"image": torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    expected = normalized_batch([row], mean, std, 32)
    assert sizes.tolist() == [list(expected.image_sizes[0])]
    assert original.tolist() == list(size)
    # One gray level is 0.017.
    np.testing.assert_allclose(batch, expected.tensor.numpy(), atol=1e-5)


def test_an_image_is_stretched():
    image = _image(97, 61)
    stretched = replace(PLAIN, min_size=0, divisibility=0, size=(40, 48))
    batch, sizes, _ = _run(stretched.before(), {"image": image[None]})
    row = {"image": torch.from_numpy(image).permute(2, 0, 1)}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    assert sizes.tolist() == [[40, 48]]
    np.testing.assert_allclose(batch, stretched_batch([row], (40, 48), mean, std).numpy(), atol=1e-4)


def test_the_mirrored_views_follow_the_images():
    images = np.stack([_image(33, 40, seed) for seed in (1, 2)])
    views = _run(replace(PLAIN, min_size=0, flip=True).before(), {"image": images})[0]
    assert views.shape == (4, 3, 64, 64)
    np.testing.assert_array_equal(views[2:, :, :33, :40], views[:2, :, :33, :40][..., ::-1])


@pytest.mark.parametrize("rule", ["mean", "max", "top_pixels"])
def test_maps_return_to_the_original_size(rule):
    maps = torch.rand(2, 32, 64)
    unpadded, original = (27, 45), (41, 38)
    inputs = {FORGED: maps.numpy(), SIZES: np.array([unpadded]), "original": np.array(original)}
    scores, found = _run(replace(PLAIN, image_score=rule).after(), inputs)
    for one, score, result in zip(maps, scores, found, strict=True):
        expected = to_original(one, unpadded, original).clamp(0, 1)
        np.testing.assert_allclose(result, expected.numpy(), atol=1e-5)
        assert score == pytest.approx(score_from_map(expected, rule), abs=1e-5)


def test_views_are_averaged():
    upright, mirrored = np.full((1, 2, 2), 0.5, np.float32), np.array([[[0, 1], [0, 0.5]]], np.float32)
    inputs = {
        FAKE: np.array([0.2, 0.6], np.float32),
        FORGED: np.concatenate([upright, mirrored]),
        SIZES: np.array([[2, 2]]),
        "original": np.array([2, 2]),
    }
    scores, maps = _run(replace(PLAIN, has_score=True, flip=True).after(), inputs)
    assert scores == pytest.approx([0.4])
    np.testing.assert_allclose(maps, [[[0.75, 0.25], [0.5, 0.25]]])  # (0.5 + 1) / 2, ... of the mirror image back


def test_forged_competes_with_authentic():
    inputs = {
        FORGED: np.array([[[0.3, 0.0]]], np.float32),
        "network_authentic": np.array([[[0.1, 0.0]]], np.float32),
        SIZES: np.array([[1, 2]]),
        "original": np.array([1, 2]),
    }
    maps = _run(replace(PLAIN, has_authentic=True).after(), inputs)[1]
    np.testing.assert_allclose(maps, [[[0.75, 0.0]]], atol=1e-6)
