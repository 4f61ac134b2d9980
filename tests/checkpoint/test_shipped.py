"""Finding the weights that ship, and refusing a file that is not what its digest says."""

import pytest
from safetensors.torch import load_file

from ddl_d2.checkpoint.saving import read_metadata, save_tensors
from ddl_d2.checkpoint.shipped import DEFAULT_WEIGHTS, about_weights, find_weights, list_weights, shipped_weights
from ddl_d2.errors import CheckpointError
from ddl_d2.inference.model import load_model


def test_no_name_and_the_name_are_the_same_file():
    assert DEFAULT_WEIGHTS in list_weights()
    assert find_weights(None) == find_weights(DEFAULT_WEIGHTS) == str(shipped_weights())


def test_a_path_stays_a_path(tmp_path):
    assert find_weights(tmp_path / "model.pth") == str(tmp_path / "model.pth")


def test_an_unknown_name_lists_those_there_are():
    for find in (shipped_weights, find_weights, load_model):
        with pytest.raises(CheckpointError, match=f"eyes_of_an_eagle: no such weights file.*{DEFAULT_WEIGHTS}"):
            find("eyes_of_an_eagle")


def test_it_says_what_it_is():
    assert about_weights(shipped_weights()).startswith(DEFAULT_WEIGHTS)


def test_changed_weights_are_refused(tmp_path):
    path = shipped_weights()
    weights, metadata = load_file(path), read_metadata(path)
    weights["image_head.linear.bias"] += 0.5
    changed = tmp_path / "changed.safetensors"
    save_tensors(str(changed), weights, **{key: value for key, value in metadata.items() if key != "format"})
    with pytest.raises(CheckpointError, match="sha256 differs"):
        load_model(changed, device="cpu", opts=["INPUT.FACES.FINDER", "dlib"])
