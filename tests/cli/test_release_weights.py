import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file

import ddl_d2.modeling  # noqa: F401  registers the systems
from ddl_d2.checkpoint.saving import read_metadata, save_tensors
from ddl_d2.checkpoint.shipped import digest
from ddl_d2.cli.release_weights import main, mean_of
from ddl_d2.config.load import config_from_text
from ddl_d2.errors import CheckpointError
from ddl_d2.io.image import write_png
from tests.conftest import TINY

RECIPE = "release/eyes_lite0"


@pytest.fixture
def weights(tiny_cfg, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model_final.safetensors"
    save_tensors(str(path), build_model(tiny_cfg(config=f"{RECIPE}.yaml")).state_dict())
    return path


def _release(weights, output, *words, more=()):
    words = [str(weights), "--config", RECIPE, "--name", "eyes", "--output", str(output), *words]
    return main([*words, "--opts", *TINY, "OUTPUT_DIR", "/somewhere", "INPUT.FACES.CACHE", "/somewhere/else", *more])


def test_half_the_bytes_and_a_config_of_no_machine(weights, tmp_path):
    output = tmp_path / "weights" / "eyes.safetensors"
    assert _release(weights, output) == 0
    assert output.stat().st_size < 0.6 * weights.stat().st_size
    metadata = read_metadata(str(output))
    assert "/somewhere" not in metadata["config"]
    assert "free_portraits" not in metadata["config"]
    assert config_from_text(metadata["config"]).MODEL.META_ARCHITECTURE == "ForgeryFPN"
    assert metadata["sha256"] == digest(load_file(output))


def test_the_offset_moves_every_logit(weights, tmp_path):
    outputs = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    _release(weights, outputs[0])
    _release(weights, outputs[1], "--score-offset", "1.5")
    before, after = (load_file(path)["image_head.linear.bias"].float() for path in outputs)
    assert after.item() - before.item() == pytest.approx(1.5, abs=2e-3)


def _filled(state, value, count):
    """A state dict of the same shapes with one value in all floats, and one in all counters."""
    return {name: torch.full_like(one, value if one.is_floating_point() else count) for name, one in state.items()}


def test_several_checkpoints_become_their_mean(weights, tmp_path):
    state, paths = load_file(weights), [tmp_path / "0.pth", tmp_path / "1.pth"]
    for number, path in enumerate(paths):
        average = _filled(state, number + 1.0, number)
        torch.save({"model": _filled(state, 9.0, number), "ema": {"weights": average}}, path)
    words = [*map(str, paths), "--config", RECIPE, "--name", "eyes", "--output", str(tmp_path / "mean.safetensors")]
    assert main([*words, "--opts", *TINY]) == 0
    found = load_file(tmp_path / "mean.safetensors")
    assert set(found) == set(state)
    assert all((one == (1.5 if one.is_floating_point() else 1)).all() for one in found.values())


def test_weights_of_another_model_are_refused(tmp_path, capsys):
    save_tensors(str(tmp_path / "x.safetensors"), {"x": torch.zeros(1)})
    with pytest.raises(SystemExit):
        _release(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert "not one of its 1 tensors belongs to this model" in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()


def test_checkpoints_of_two_models_are_refused():
    with pytest.raises(CheckpointError, match="not of one model"):
        mean_of([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}])


def test_a_changed_value_changes_the_digest():
    weights = {"a": torch.zeros(3), "b": torch.tensor(1)}
    other = {"a": torch.tensor([0.0, 0.0, 1e-3]), "b": torch.tensor(1)}
    assert digest(weights) == digest(dict(reversed(weights.items()))) != digest(other)


def test_weights_without_an_image_head_cannot_be_offset(tmp_path, capsys):
    save_tensors(str(tmp_path / "x.safetensors"), {"x": torch.zeros(1)})
    with pytest.raises(SystemExit):
        _release(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "--score-offset", "1")
    assert "image_head.linear.bias" in capsys.readouterr().err


def test_norms_are_measured_on_training_images(weights, tmp_path, astronaut, finder):
    folder = tmp_path / "portraits"
    write_png(folder / "train/real/astronaut.png", astronaut)
    keys = ["DATASETS.SOURCES", f"[['here', '{folder}', 1.0]]", "DATASETS.TRAIN", "('here_train',)"]
    forging = [
        "INPUT.FACE_SWAP.AUTOENCODER_PROB",
        "0.0",
        "INPUT.FACE_SWAP.EIGEN_PROB",
        "0.0",
        "SOLVER.IMS_PER_BATCH",
        "2",
    ]
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    _release(weights, before)
    _release(weights, after, "--norm-batches", "2", more=[*keys, *forging])
    before, after = load_file(before), load_file(after)
    changed = {name.rsplit(".", 1)[-1] for name in before if not torch.equal(before[name], after[name])}
    assert {"running_mean", "running_var"} <= changed <= {"running_mean", "running_var", "num_batches_tracked"}


def test_a_file_is_replaced_only_on_purpose(weights, tmp_path, capsys):
    output = tmp_path / "eyes.safetensors"
    output.write_bytes(b"mine")
    with pytest.raises(SystemExit) as stopped:
        _release(weights, output)
    assert (stopped.value.code, output.read_bytes()) == (2, b"mine")
    assert "--overwrite" in capsys.readouterr().err
    assert _release(weights, output, "--overwrite") == 0
    assert len(output.read_bytes()) > 1000
