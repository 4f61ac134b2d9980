import os
import pickle

import pytest
import torch
from detectron2.engine import DefaultTrainer
from safetensors.torch import load_file, save_file
from torch import nn

from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.checkpoint.saving import read_metadata
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.errors import CheckpointError, SaveError
from ddl_d2.solver.build import build_lr_scheduler, build_optimizer


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
    assert "newly initialized" in caplog.text


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


def test_what_an_interrupted_save_left_is_cleared_away(tmp_path, caplog):
    Checkpointer(_model(), str(tmp_path)).save("model_1", iteration=1)
    (tmp_path / "model_2.pth.tmp-17").write_bytes(b"half")
    (tmp_path / "last_checkpoint.tmp-17").write_bytes(b"")
    Checkpointer(_model(), str(tmp_path)).resume_or_load("", resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_1.pth"]


def test_a_resume_mends_the_tag_and_exports_that_a_crash_prevented(tmp_path):
    model = _model()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_best", iteration=4, best_metric=0.5)
    checkpointer.save_weights("model_best", iteration=2)  # of the best before
    checkpointer.save("model_5", iteration=5)
    (tmp_path / "last_checkpoint").write_text("")
    again = Checkpointer(_model(), str(tmp_path))
    assert again.resume_or_load("", resume=True)["iteration"] == 5
    assert again.resumed_from == str(tmp_path / "model_5.pth")
    assert (tmp_path / "last_checkpoint").read_text() == "model_5.pth"
    assert read_metadata(str(tmp_path / "model_best.safetensors"))["iteration"] == "4"
    assert torch.equal(load_file(tmp_path / "model_best.safetensors")["0.weight"], model[0].weight)


def test_without_resume_nothing_is_touched(tmp_path):
    Checkpointer(_model(), str(tmp_path)).save("model_1", iteration=1)
    (tmp_path / "last_checkpoint").write_text("nonsense")
    checkpointer = Checkpointer(_model(), str(tmp_path))
    assert checkpointer.resume_or_load("", resume=False) == {}
    assert checkpointer.resumed_from == ""
    assert (tmp_path / "last_checkpoint").read_text() == "nonsense"


def test_nothing_to_resume_from_starts_from_the_weights(tmp_path):
    save_file(_model(3).state_dict(), tmp_path / "w.safetensors")
    model = _model()
    torch.nn.init.zeros_(model[0].weight)
    checkpointer = Checkpointer(model, str(tmp_path / "not made yet"))
    checkpointer.resume_or_load(str(tmp_path / "w.safetensors"), resume=True)
    assert checkpointer.resumed_from == ""
    assert model[0].weight.any()


def test_only_damaged_ones_are_an_error_and_not_a_new_start(tmp_path):
    (tmp_path / "model_1.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from \(model_1\.pth: "):
        Checkpointer(_model(), str(tmp_path)).resume_or_load("", resume=True)


class _Detectron2s(DefaultTrainer):
    """Detectron2's own trainer and checkpointer, around this project's parts."""

    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_train_loader = staticmethod(ForgeryTrainer.build_train_loader)


@pytest.fixture
def cfg(tiny_cfg, tiny_set, tmp_path):
    more = ["DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path), "SOLVER.IMS_PER_BATCH", "2"]
    small = [
        "INPUT.MIN_SIZE_TRAIN",
        "(64,)",
        "INPUT.CROP.SIZE",
        "[64, 64]",
        "SOLVER.MAX_ITER",
        "5",
        "TEST.EVAL_PERIOD",
        "0",
    ]
    return tiny_cfg(*more, *small, "SOLVER.CHECKPOINT_PERIOD", "2", "DATASETS.TEST", "()")


@pytest.mark.parametrize(("first", "second"), [(_Detectron2s, ForgeryTrainer), (ForgeryTrainer, _Detectron2s)])
def test_a_run_goes_on_under_the_other_trainer(first, second, cfg, tmp_path, caplog):
    cfg.SOLVER.MAX_ITER = 2
    trainer = first(cfg)
    trainer.train()
    saved = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    cfg.SOLVER.MAX_ITER = 3
    again = second(cfg)
    again.resume_or_load(resume=True)
    assert again.start_iter == 2
    assert all(torch.equal(value, saved[name]) for name, value in again.model.state_dict().items())
    before = trainer._trainer.optimizer.state_dict()["state"]
    after = again._trainer.optimizer.state_dict()["state"]
    assert all(torch.equal(after[key]["exp_avg"], before[key]["exp_avg"]) for key in before)
    again.train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    if second is ForgeryTrainer:
        assert "has no order of images" in caplog.text


def test_weights_of_the_final_and_the_best_are_exported(tmp_path):
    model = _model()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save_weights("model_final", iteration=9)
    copy = _model()
    torch.nn.init.zeros_(copy[0].weight)
    load_weights(copy, tmp_path / "model_final.safetensors")
    assert torch.equal(copy[0].weight, model[0].weight)


def test_a_failed_export_is_an_error(tmp_path):
    with pytest.raises(SaveError):
        Checkpointer(_model(), str(tmp_path / "gone")).save_weights("model_final", iteration=9)
