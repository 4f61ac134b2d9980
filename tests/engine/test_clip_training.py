"""Clips through the whole of a training: loader, steps, evaluation, best checkpoint, store, and again from it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ddl_d2.cli.evaluate import main as evaluate
from ddl_d2.data.datasets import register_datasets
from ddl_d2.engine.trainer import ForgeryTrainer
from ddl_d2.predictions.clip_submission import read_clip_submission
from ddl_d2.predictions.store import PredictionStore
from tests.clip_files import tone, write_talk
from tests.conftest import load_benchmark


@pytest.fixture(scope="module")
def clip_set(tmp_path_factory):
    """Eight clips in LAV-DF's layout, half of them in each split; every second one is "forged" in frames 2 to 6."""
    root = tmp_path_factory.mktemp("clips")
    entries = []
    for number in range(8):
        split = "train" if number < 4 else "dev"
        name = f"{split}/{number:06d}.mp4"
        sound = tone(0.4, 16000, hertz=200 + 50 * number)[None]
        write_talk(root / name, frames=10, sound=sound, sound_rate=16000)
        periods = [[0.08, 0.24]] if number % 2 else []
        entries.append(
            {"file": name, "split": split, "n_fakes": len(periods), "fake_periods": periods, "duration": 0.4}
            | {"modify_video": bool(periods), "modify_audio": False, "original": None, "video_frames": 10}
        )
    (root / "metadata.json").write_text(json.dumps(entries))
    return root


def test_a_training_on_clips(clip_set, tiny_cfg, tmp_path, capsys):
    cfg = tiny_cfg(
        "DATASETS.LAV_DF_ROOT", str(clip_set),
        "SOLVER.MAX_ITER", "2",
        "SOLVER.IMS_PER_BATCH", "2",
        "SOLVER.CHECKPOINT_PERIOD", "2",
        "MODEL.BATFD.REMEMBERED_FRAMES", "64",
        "TEST.EVAL_PERIOD", "2",
        "TEST.SAVE_PREDICTIONS", "True",
        "OUTPUT_DIR", str(tmp_path / "out"),
        config="two_cores/batfd_plus_self_forged.yaml",
    )  # fmt: skip
    register_datasets(cfg)
    trainer = ForgeryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    results = trainer._last_eval_results
    assert results["ddl"]["num_clips"] == 4
    assert 0 <= results["ddl"]["AP@0.5"] <= 1
    assert (tmp_path / "out" / "model_best.safetensors").is_file()
    # The store that the evaluation left gives the same figures, and a submission.
    folder = tmp_path / "out" / "inference" / "lav_df_valid"
    store = PredictionStore(folder / "predictions")
    assert len(store) == 4
    arguments = ["--predictions", str(store.root), "--dataset-root", str(clip_set), "--split", "valid"]
    assert evaluate([*arguments, "--submission", str(tmp_path / "out.zip"), "--ap", "0.5", "--ar", "10"]) == 0
    assert "AP@0.5" in capsys.readouterr().out
    again = json.loads((store.root / "metrics.json").read_text())
    assert again["AP@0.5"] == pytest.approx(results["ddl"]["AP@0.5"], abs=1e-6)
    assert len(read_clip_submission(tmp_path / "out.zip")) == 4


def test_what_chance_finds(clip_set, tmp_path, capsys):
    tool = load_benchmark("benchmark_chance")
    out = tmp_path / "chance.json"
    assert tool.main(["--dataset-root", str(clip_set), "--draws", "3", "--json", str(out)]) == 0
    assert "4 clips of" in capsys.readouterr().out
    found = json.loads(out.read_text())
    # All forged segments of the set are equally long, and one of 7 places of that length is right.
    assert found["usual length"]["AR@10"] == 1
    assert 0 < found["usual length"]["AP@0.5"] < 1
    assert np.isfinite(found["loudness"]["AUC"])
