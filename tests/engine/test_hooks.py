import json
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from torch import nn

from ddl_d2.checkpoint.checkpointer import Checkpointer
from ddl_d2.checkpoint.resume import read_lightly
from ddl_d2.engine.hooks import checkpoints
from ddl_d2.engine.hooks.checkpoints import BestCheckpoint, RecentCheckpoints
from ddl_d2.engine.hooks.evaluation import Evaluation, StopWhenAsked
from ddl_d2.engine.hooks.reports import TolerantWriter
from ddl_d2.errors import SaveError
from tests.ranks import on_ranks


class _Trainer(TrainerBase):
    """Steps that do nothing but put scores; `stop_at`: the iteration at which a stop is agreed."""

    def __init__(self, scores=None, stop_at=None):
        super().__init__()
        self.model = nn.Linear(1, 1)
        self.scores = scores or {}
        self.stop_at = stop_at
        self.stopped = False

    def run_step(self):
        self.stopped = self.iter == self.stop_at

    def run(self, *run_hooks, start=0, end=6):
        self.register_hooks(list(run_hooks))
        self.train(start, end)
        return self


class _Scores(HookBase):
    """Puts what an evaluation would, after the steps named."""

    def after_step(self):
        score = self.trainer.scores.get(self.trainer.iter)
        if score is not None:
            self.trainer.storage.put_scalar("score", score, smoothing_hint=False)


def _checkpointer(folder, trainer, **options):
    return Checkpointer(trainer.model, str(folder), trainer=trainer, **options)


def _names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_last_are_kept_and_the_final_one_is_exported(tmp_path):
    trainer = _Trainer()
    trainer.run(RecentCheckpoints(_checkpointer(tmp_path, trainer), period=1, max_to_keep=2))
    kept = ["last_checkpoint", "model_0000004.pth", "model_0000005.pth", "model_final.pth", "model_final.safetensors"]
    assert _names(tmp_path) == kept
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_checkpoints_of_a_list_are_kept_for_good(tmp_path):
    """Every third step of ten, the last one of those, and those after steps 3 and 4."""
    trainer = _Trainer()
    trainer.run(RecentCheckpoints(_checkpointer(tmp_path, trainer), period=3, max_to_keep=1, keep=[3, 4]), end=10)
    periodic = [name for name in _names(tmp_path) if name.startswith("model_0")]
    assert periodic == ["model_0000002.pth", "model_0000003.pth", "model_0000008.pth"]


def test_a_resumed_run_clears_away_what_the_one_before_saved(tmp_path):
    first = _Trainer(stop_at=2)
    recent = RecentCheckpoints(_checkpointer(tmp_path, first), 1, 2)
    (tmp_path / "model_0000000.pth").write_bytes(b"of another run: it is written over")
    (tmp_path / "model_0000077.pth").write_bytes(b"of another run")
    with pytest.raises(SystemExit):
        first.run(recent, StopWhenAsked(lambda: first.stopped, recent.save))
    again = _Trainer()
    checkpointer = _checkpointer(tmp_path, again)
    again.register_hooks([RecentCheckpoints(checkpointer, 1, 2)])
    checkpointer.load(str(tmp_path / "model_0000002.pth"))
    again.train(3, 4)
    periodic = [name for name in _names(tmp_path) if name.startswith("model_0")]
    assert periodic == ["model_0000002.pth", "model_0000003.pth", "model_0000077.pth"]


def test_a_failed_save_is_said_and_training_goes_on(tmp_path, monkeypatch, caplog):
    trainer = _Trainer()
    recent = RecentCheckpoints(_checkpointer(tmp_path, trainer), period=2, max_to_keep=1)
    save = recent.checkpointer.save

    def save_but_once(name, **kwargs):
        if name == "model_0000003":
            raise SaveError("cannot save it: No space left on device")
        save(name, **kwargs)

    monkeypatch.setattr(recent.checkpointer, "save", save_but_once)
    trainer.run(recent, end=5)
    # With one to keep, that of iteration 1 is the only one, and stays.
    assert [name for name in _names(tmp_path) if name.endswith("pth")] == ["model_0000001.pth", "model_final.pth"]
    record = next(r for r in caplog.records if r.levelname == "ERROR")
    assert "No space left on device. Training goes on; the next try is at iteration 5" in record.message


def test_a_failed_final_save_is_an_error(tmp_path, monkeypatch):
    trainer = _Trainer()
    recent = RecentCheckpoints(_checkpointer(tmp_path, trainer), period=100, max_to_keep=1)

    def full(name, **kwargs):
        raise SaveError("full")

    monkeypatch.setattr(recent.checkpointer, "save", full)
    with pytest.raises(SaveError):
        trainer.run(recent)


def test_the_only_good_checkpoint_is_not_deleted_for_a_bad_one(tmp_path, monkeypatch, caplog):
    trainer = _Trainer()
    recent = RecentCheckpoints(_checkpointer(tmp_path, trainer), period=2, max_to_keep=1)
    monkeypatch.setattr(checkpoints, "damage_of", lambda path: "damaged (so it is said here)")
    trainer.run(recent, end=5)
    assert {"model_0000001.pth", "model_0000003.pth"} <= set(_names(tmp_path))
    assert "older checkpoints are kept" in caplog.text


def test_the_best_is_saved_and_a_resumed_run_knows_it(tmp_path):
    def run(scores, start, end):
        trainer = _Trainer(scores)
        best = BestCheckpoint(_checkpointer(tmp_path, trainer, tag_last=False), "score")
        trainer.run(_Scores(), best, start=start, end=end)
        return read_lightly(tmp_path / "model_best.pth")["iteration"]

    assert run({0: 0.3, 1: 0.5, 2: 0.4, 3: 0.5}, 0, 4) == 1
    # Better than the last, but not than the best.
    assert run({4: 0.45}, 4, 5) == 1
    assert run({5: float("nan")}, 5, 6) == 1
    assert run({6: 0.6}, 6, 7) == 6
    assert (tmp_path / "model_best.safetensors").exists()
    # A new run in the folder is not measured by the old one.
    assert run({0: 0.1}, 0, 1) == 0


class _Metrics(HookBase):
    """Puts dicts of metrics, by iteration, into the storage."""

    def __init__(self, by_iteration):
        self.by_iteration = by_iteration

    def after_step(self):
        for name, value in self.by_iteration.get(self.trainer.iter, {}).items():
            self.trainer.storage.put_scalar(name, value, smoothing_hint=False)


NAN = float("nan")


@pytest.mark.parametrize(
    ("metrics", "by"),
    [
        ({"final": 0.5, "auc": 0.5, "f1": 0.5, "iou": 0.5, "accuracy": 0.5}, "final"),
        ({"final": NAN, "auc": 0.5, "f1": NAN, "iou": NAN, "accuracy": 0.5}, "auc"),
        ({"final": NAN, "auc": NAN, "f1": 0.25, "iou": 0.25, "accuracy": 1.0}, "f1 + iou"),
        ({"final": NAN, "auc": NAN, "f1": NAN, "iou": NAN, "accuracy": 0.5}, "accuracy"),
    ],
)
def test_images_of_one_class_have_a_best_checkpoint_too(tmp_path, caplog, metrics, by):
    def run(factors, start, end):
        scores = {i: {name: value * factor for name, value in metrics.items()} for i, factor in factors.items()}
        trainer = _Trainer()
        checkpointer = _checkpointer(tmp_path, trainer, tag_last=False)
        best = BestCheckpoint(checkpointer, "final", instead=("auc", "f1 + iou", "accuracy"))
        trainer.run(_Metrics(scores), best, start=start, end=end)
        saved = read_lightly(tmp_path / "model_best.pth")
        return saved["iteration"], saved["best_by"]

    assert run({0: 0.5, 1: 1.0, 2: 0.7}, 0, 3) == (1, by)
    assert caplog.text.count(f"final is not defined on these images: model_best is chosen by {by}") == (by != "final")
    assert run({3: 0.8}, 3, 4) == (1, by)
    assert run({4: 1.1}, 4, 5) == (4, by)


def test_values_of_two_metrics_are_not_compared(tmp_path):
    scores = {
        0: {"final": NAN, "accuracy": 0.9},
        1: {"final": 0.1, "accuracy": 0.9},
        2: {"final": NAN, "accuracy": 1.0},
    }
    trainer = _Trainer()
    best = BestCheckpoint(_checkpointer(tmp_path, trainer, tag_last=False), "final", instead=("accuracy",))
    trainer.run(_Metrics(scores), best, end=3)
    assert (best.best, best.best_by) == (0.1, "final")


def test_a_best_file_that_does_not_say_its_score_is_replaced(tmp_path, caplog):
    torch.save({"model": {}, "iteration": 7}, tmp_path / "model_best.pth")
    trainer = _Trainer({3: 0.1})
    trainer.run(_Scores(), BestCheckpoint(_checkpointer(tmp_path, trainer), "score"), start=3, end=4)
    assert "does not say what it scored" in caplog.text
    assert read_lightly(tmp_path / "model_best.pth")["best_metric"] == 0.1


def test_a_stop_saves_and_leaves_with_143(tmp_path):
    trainer = _Trainer(stop_at=3)
    recent = RecentCheckpoints(_checkpointer(tmp_path, trainer), period=100, max_to_keep=2)
    with pytest.raises(SystemExit) as caught:
        trainer.run(recent, StopWhenAsked(lambda: trainer.stopped, recent.save))
    assert caught.value.code == 143
    assert trainer.iter == 3
    assert _names(tmp_path) == ["last_checkpoint", "model_0000003.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"


def _evaluation(trainer, evaluate, period=2, wanted=lambda: False, save=None):
    return Evaluation(period, evaluate, stop_requested=wanted, stop_agreed=lambda: trainer.stopped, save=save)


def test_an_evaluation_that_was_due_comes_first():
    def evaluated(start, end):
        trainer, at = _Trainer(), []
        trainer.run(_evaluation(trainer, lambda: at.append(trainer.storage.iter)), start=start, end=end)
        return at

    # After steps 1, 3 and, at the end, 5 (whose number is then 6).
    assert evaluated(0, 6) == [1, 3, 6]
    # Resumed from the checkpoint of iteration 3: it is done again, as of that iteration.
    assert evaluated(4, 6) == [3, 6]
    assert evaluated(3, 6) == [3, 6]
    assert evaluated(6, 6) == [7]


def test_an_evaluation_stops_between_batches_and_the_training_is_saved():
    trainer, saved = _Trainer(), []
    asked = []

    def evaluate():
        for batch in range(4):
            if batch == 2:
                asked.append(True)
            trainer.model(torch.zeros(1))
            seen.append(batch)

    seen = []
    hook = _evaluation(trainer, evaluate, wanted=lambda: bool(asked), save=lambda: saved.append(trainer.iter))
    with pytest.raises(SystemExit) as caught:
        trainer.run(hook)
    assert caught.value.code == 143
    assert (seen, saved) == ([0, 1], [1])
    assert not trainer.model._forward_pre_hooks


def test_a_failing_evaluation_loses_no_training():
    trainer, saved = _Trainer(), []

    def evaluate():
        raise ValueError("bad image")

    with pytest.raises(ValueError, match="bad image"):
        trainer.run(_evaluation(trainer, evaluate, save=lambda: saved.append(trainer.iter)))
    assert saved == [1]


def test_a_stopped_run_does_not_evaluate_at_its_end():
    trainer, at = _Trainer(stop_at=5), []
    stop = StopWhenAsked(lambda: trainer.stopped, None)
    with pytest.raises(SystemExit):
        trainer.run(stop, _evaluation(trainer, lambda: at.append(trainer.iter), period=100))
    assert at == []


class _FullDisk(EventWriter):
    def write(self):
        raise OSError(28, "No space left on device")


def test_metrics_that_cannot_be_written_do_not_end_the_training(tmp_path, caplog):
    trainer = _Trainer(dict.fromkeys(range(6), 0.5))
    trainer.run(_Scores(), TolerantWriter([JSONWriter(str(tmp_path / "metrics.json")), _FullDisk()], period=2))
    assert trainer.iter == 6
    assert caplog.text.count("Metrics cannot be written: [Errno 28] No space left on device") == 4
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 3, 5]


def _rank(rank):
    model = nn.BatchNorm1d(2)
    model.running_mean += rank + 1
    model.weight.data += rank
    seen = []
    hook = _evaluation(SimpleNamespace(stopped=False), lambda: seen.append(model.running_mean.tolist()))
    hook.trainer = SimpleNamespace(model=model, storage=EventStorage())
    hook._do_eval()
    assert seen == [[1.0, 1.0]]  # those of rank 0
    assert model.weight.tolist() == [1.0 + rank] * 2  # DistributedDataParallel sees to the parameters


def test_all_ranks_evaluate_with_the_statistics_that_are_saved():
    assert on_ranks(_rank, 2) == [None] * 2
