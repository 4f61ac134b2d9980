"""`ddl-d2 adapt`: what comes out, that no label goes in, and that a stopped adaptation goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from safetensors.torch import load_file

from ddl_d2.checkpoint.loading import config_of_weights
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.cli import adapt, cache_tokens
from ddl_d2.data.build import all_rows
from ddl_d2.data.datasets import load_config
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.predictions.store import PredictionStore
from tests.conftest import ROOT, TINY
from tests.loupe_small import CLASSIFIER_ONLY, SMALL_LOUPE
from tests.ranks import on_ranks

CONFIG = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
# Two passes in steps of 2 images: six steps, each saved.
ADAPT = ["TEST.ADAPT.BATCH_SIZE", "2", "TEST.ADAPT.EPOCHS", "2", "TEST.ADAPT.BASE_LR", "0.01"]


@pytest.fixture(scope="module")
def weights(tiny_set, tmp_path_factory) -> Path:
    """An untrained Loupe that calls every image fake, with its config, whose data is the tiny set."""
    path = tmp_path_factory.mktemp("weights") / "loupe.safetensors"
    opts = ["DATASETS.DDL_ROOT", str(tiny_set), "DATASETS.TEST", "('ddl_i_valid',)", "SOLVER.CHECKPOINT_PERIOD", "1"]
    cfg = load_config(CONFIG, [*TINY, *SMALL_LOUPE, *ADAPT, *opts])
    torch.manual_seed(0)
    model = ForgeryTrainer.build_model(cfg)
    with torch.no_grad():
        model.classifier.fusion.weight.fill_(1.0)
        model.classifier.patch_head[-1].bias.fill_(0.5)
        model.segmentor.head.predictor.class_embed.bias[0] -= 3  # maps below 1 everywhere
    save_tensors(str(path), model.state_dict(), config=cfg.dump())
    return path


@pytest.fixture(scope="module")
def run(weights):
    """`run(folder, *words)` runs the command."""
    return lambda folder, *words: adapt.main(["--weights", str(weights), "--output", str(folder), *words])


@pytest.fixture(scope="module")
def adapted(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    assert run(folder) == 0
    return folder


def test_only_the_segmentor_changes(adapted, weights):
    before, after = load_file(weights), load_file(adapted / "model_final.safetensors")
    assert after.keys() == before.keys()
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"segmentor"}


def test_it_predicts_into_a_store_and_tells_what_it_changed(adapted, run, tmp_path, capsys):
    store = PredictionStore(adapted / "inference" / "ddl_i_valid" / "predictions")
    assert len(store) == 6
    table = json.loads((adapted / "adaptation.json").read_text())
    assert table["before"]["auc"] == table["after"]["auc"]  # the score is the classifier's
    before = PredictionStore(adapted / "before" / "inference" / "ddl_i_valid" / "predictions")
    assert all((store.read_map(image) != before.read_map(image)).any() for image in store)
    run(tmp_path / "again")
    said = capsys.readouterr().out
    assert "metric" in said
    assert f"predictions: {tmp_path / 'again' / 'inference' / 'ddl_i_valid' / 'predictions'}" in said
    assert _same(adapted, tmp_path / "again", "ddl_i_valid", "ddl_i_valid")


def _same(one, other, name, other_name):
    """Whether two adaptations came to the same weights, scores and maps."""
    ours, theirs = load_file(one / "model_final.safetensors"), load_file(other / "model_final.safetensors")
    if any(not torch.equal(ours[key], theirs[key]) for key in theirs):
        return False
    ours, theirs = (
        PredictionStore(folder / "inference" / dataset / "predictions")
        for folder, dataset in ((one, name), (other, other_name))
    )
    return all(
        ours.score(image) == theirs.score(image) and (ours.read_map(image) == theirs.read_map(image)).all()
        for image in ours
    )


@pytest.fixture
def as_other_dataset():
    """`as_other_dataset(name, change)` registers the tiny validation set's rows, each changed."""
    names = []

    def register(name, change):
        rows = [change(dict(row)) for row in all_rows("ddl_i_valid")]
        DatasetCatalog.register(name, lambda: rows)
        names.append(name)

    yield register
    for name in names:
        DatasetCatalog.remove(name)


def _without_labels(row):
    return {key: row[key] for key in ("file_name", "image_id")}


def _with_the_other_label(row):
    flipped = _without_labels(row) | {"is_fake": 1 - row["is_fake"]}
    return flipped | ({"fully_forged": True} if flipped["is_fake"] else {})


@pytest.mark.parametrize("change", [_without_labels, _with_the_other_label])
def test_labels_are_not_read(adapted, run, as_other_dataset, tmp_path, change):
    as_other_dataset("other_labels", change)
    run(tmp_path, "DATASETS.TEST", "('other_labels',)")
    assert _same(adapted, tmp_path, "ddl_i_valid", "other_labels")
    assert (tmp_path / "adaptation.json").exists() == (change is _with_the_other_label)


def test_a_stopped_adaptation_goes_on(adapted, run, tmp_path, monkeypatch):
    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ddl_d2.cli.adapt.AdaptationTrainer.run_step", _until(3, stopped))
        with pytest.raises(SystemExit):
            run(tmp_path)
    assert not (tmp_path / "model_final.safetensors").exists()
    assert run(tmp_path, "--resume") == 0
    assert "Starting training from iteration 3" in (tmp_path / "log.txt").read_text()
    assert _same(adapted, tmp_path, "ddl_i_valid", "ddl_i_valid")
    assert json.loads((tmp_path / "adaptation.json").read_text()) == json.loads(
        (adapted / "adaptation.json").read_text()
    )


def _until(steps, last):
    """A trainer's step that becomes `last` after some."""
    own = ForgeryTrainer.run_step

    def run_step(self):
        return last(self) if self.iter == steps else own(self)

    return run_step


def test_two_ranks(run, tmp_path):
    assert on_ranks(_adapt, 2, run, tmp_path) == [0, 0]
    assert len(PredictionStore(tmp_path / "inference" / "ddl_i_valid" / "predictions")) == 6
    assert (tmp_path / "adaptation.json").is_file()


def _adapt(rank, run, folder):
    # Of this process, which is a rank already, the command starts no other.
    return run(folder)


def test_a_folder_of_images(run, tiny_set, tmp_path):
    run(tmp_path, "--images", str(tiny_set / "valid" / "real"))
    assert len(PredictionStore(tmp_path / "inference" / "folder" / "predictions")) == 3


def test_cached_tokens_will_do(adapted, run, weights, tmp_path):
    cache = ["MODEL.LOUPE.TOKEN_CACHE", str(tmp_path / "tokens"), "DATASETS.TRAIN", "()"]
    (tmp_path / "config.yaml").write_text(config_of_weights(weights).dump())
    words = ["--config-file", str(tmp_path / "config.yaml"), "MODEL.WEIGHTS", str(weights), *cache]
    assert cache_tokens.main(words) == 0
    run(tmp_path / "out", *cache)
    ours, theirs = (_median_loss(folder) for folder in (tmp_path / "out", adapted))
    assert ours == pytest.approx(theirs, rel=1e-3)


def _median_loss(folder):
    (line,) = (folder / "metrics.json").read_text().splitlines()
    return json.loads(line)["total_loss"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["MODEL.LOUPE.CONDITION_TEST", "truth"], "adaptation reads no labels: leave it at 'score'"),
        (CLASSIFIER_ONLY, "give weights of stage 2 or 3"),
        (["DATASETS.TEST", "('nothing',)"], "'nothing'"),
        (["MODEL.LOUPE.HIDDEN_RATIO", "4.0"], "of another shape: classifier.global_head.0.weight"),
    ],
)
def test_what_cannot_be_adapted(run, tmp_path, capsys, words, says):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *words)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_a_folder_with_an_adaptation_is_kept(adapted, run, capsys):
    with pytest.raises(SystemExit):
        run(adapted)
    assert "holds a run (model_final.safetensors): --resume goes on with it" in capsys.readouterr().err
