import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddl_d2.engine.checkpoint import Checkpointer, CheckpointError, load_weights


def _model(width: int = 3) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl"])
def test_formats(tmp_path, suffix):
    source, path = _model().state_dict(), tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(source, path)
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in source.items()}}))
    else:
        torch.save({"model": source}, path)
    copy = _model()
    nn.init.zeros_(copy[0].weight)
    load_weights(copy, path)
    assert torch.equal(copy[0].weight, source["0.weight"])


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".bin"])
@pytest.mark.parametrize("where", ["whole", "inside"])
def test_code_in_a_file_is_not_run(tmp_path, suffix, where):
    target, path = tmp_path / "executed", tmp_path / f"evil{suffix}"
    payload = _Payload(target) if where == "whole" else {"model": {"0.weight": _Payload(target)}}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path)
    with pytest.raises(CheckpointError, match="evil"):
        load_weights(_model(), path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04K\x01.", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_damaged_files_are_one_line(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_weights(_model(), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_listed_and_a_partial_load_must_be_asked_for(tmp_path, caplog):
    torch.save(_model(5).state_dict() | {"extra": torch.zeros(1)}, tmp_path / "w.pth")
    model = _model(3)
    with pytest.raises(CheckpointError, match=r"0\.weight \(file \(5, 2\), model \(3, 2\)\)"):
        load_weights(model, tmp_path / "w.pth")
    report = load_weights(model, tmp_path / "w.pth", allow_partial=True)
    assert len(report.misshapen) == 3  # 1.bias alone has the same shape
    assert report.unused == ["extra"]
    assert "newly initialised" in caplog.text


def test_a_stranger_is_refused_even_in_part(tmp_path):
    torch.save({"something.else": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="not one of its 1 tensors"):
        load_weights(_model(), tmp_path / "w.pth", allow_partial=True)


def test_saving_is_atomic_and_tags_the_last(tmp_path, monkeypatch):
    checkpointer = Checkpointer(_model(), str(tmp_path))
    checkpointer.save("first", iteration=1)
    assert (tmp_path / "last_checkpoint").read_text() == "first.pth"

    def full_disk(*args):
        args[1].write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpointer.save("second", iteration=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.pth", "last_checkpoint"]
    assert Checkpointer(_model(), str(tmp_path)).resume_or_load("", resume=True)["iteration"] == 1


def test_the_best_checkpoint_is_not_the_one_to_resume_from(tmp_path):
    Checkpointer(_model(), str(tmp_path)).save("model_0001")
    Checkpointer(_model(), str(tmp_path), tag_last=False).save("model_best")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0001.pth"
