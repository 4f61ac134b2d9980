"""`ddl_d2.load_model`: files, bytes, images and arrays in; results out, alone, in lists, in streams and in threads."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.errors import ConfigError, ImageReadError, InputError
from ddl_d2.io.image import read_image, write_png


@pytest.fixture(scope="module")
def weights(tmp_path_factory, module_cfg):
    """An untrained, much reduced model whose file carries its config."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_tensors(str(path), build_model(module_cfg).state_dict(), config=module_cfg.dump())
    return path


@pytest.fixture(scope="module")
def module_cfg():
    from tests.conftest import ROOT, TINY

    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
    return ddl_d2.load_config(ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml", [*TINY, *small])


@pytest.fixture(scope="module")
def model(weights):
    return ddl_d2.load_model(weights, device="cpu")


@pytest.fixture
def photo(tmp_path, rng):
    path = tmp_path / "photo.png"
    write_png(path, rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    return path


def test_every_kind_of_source_gives_the_same_result(model, photo):
    pixels = read_image(photo)
    results = [model.predict(source) for source in (photo, str(photo), photo.read_bytes(), Image.open(photo), pixels)]
    assert [result.file for result in results] == [str(photo), str(photo), "", "", ""]
    for result in results:
        assert result.fake_score == results[0].fake_score
        np.testing.assert_array_equal(result.forgery_map, results[0].forgery_map)
        np.testing.assert_array_equal(result.image, pixels)
    assert results[0].forgery_map.shape == (60, 80)
    assert results[0].forgery_map.dtype == np.float32
    assert results[0].verdict == ("fake" if results[0].fake_score > 0.5 else "real")


def test_a_turned_photograph_in_memory_is_upright(model, rng):
    image = Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6  # shown a quarter turn to the right
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    from_bytes, from_pil = model.predict([buffer.getvalue(), Image.open(buffer)])
    assert from_bytes.forgery_map.shape == from_pil.forgery_map.shape == (40, 20)
    np.testing.assert_array_equal(from_bytes.image, from_pil.image)


def test_plain_values_and_the_overlay(model, photo, tmp_path):
    result = model.predict(photo)
    values = json.loads(json.dumps(result.to_dict()))
    assert values["file"] == str(photo)
    assert values["score"] == result.fake_score
    assert len(values["regions"]) == len(result.regions)
    result.save_overlay(tmp_path / "overlay.png")
    assert read_image(tmp_path / "overlay.png").shape[1] > 3 * 80
    assert "photo.png" in repr(result)


def test_lists_are_batched_and_change_nothing(model, rng):
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((60, 80, 3), (80, 60, 3), (60, 80, 3))]
    for together, alone in zip(model.predict(images), map(model.predict, images), strict=True):
        assert together.fake_score == pytest.approx(alone.fake_score, abs=1e-5)
        np.testing.assert_allclose(together.forgery_map, alone.forgery_map, atol=1e-4)


def test_a_stream_goes_on_behind_a_broken_file(model, tmp_path, rng):
    for name in ("a", "c"):
        write_png(tmp_path / f"{name}.png", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    (tmp_path / "b.png").write_bytes(b"not an image")
    results = list(model.predict_many(tmp_path, batch_size=2))
    assert [result.error is None for result in results] == [True, False, True]
    broken = results[1]
    assert broken.to_dict() == {"file": str(tmp_path / "b.png"), "error": broken.error.reason}
    with pytest.raises(ImageReadError, match=r"b\.png"):
        broken.fake_score  # noqa: B018
    with pytest.raises(ImageReadError, match=r"b\.png"):
        model.predict(tmp_path / "b.png")


def test_errors_of_the_caller(model, weights, tmp_path):
    with pytest.raises(InputError, match="cannot predict a int"):
        model.predict(3)
    with pytest.raises(ImageReadError, match="must be uint8"):
        model.predict(np.zeros((4, 4)))
    with pytest.raises(InputError, match="batch_size"):
        list(model.predict_many(tmp_path, batch_size=0))
    with pytest.raises(InputError, match="threshold"):
        ddl_d2.load_model(weights, threshold=2.0)


def test_weights_without_a_config_want_one_named(module_cfg, tmp_path):
    path = str(tmp_path / "bare.safetensors")
    save_tensors(path, build_model(module_cfg).state_dict())
    with pytest.raises(ConfigError, match=r"bare\.safetensors: carries no config"):
        ddl_d2.load_model(path)


def test_four_threads_share_a_model(model, rng):
    """Scores and heat maps belong to their own image, whatever other threads show the same model."""
    images = [rng.integers(0, 256, (40 + 8 * i, 56, 3), dtype=np.uint8) for i in range(4)]
    alone = [model.predictor(image, heat_map=True) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: (i, model.predictor(images[i], heat_map=True)), list(range(4)) * 6))
    for i, output in found:
        assert output["fake_score"] == pytest.approx(alone[i]["fake_score"], abs=1e-6)
        torch.testing.assert_close(output["heat_map"], alone[i]["heat_map"], atol=1e-5, rtol=0)
