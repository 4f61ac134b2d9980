"""Scores of videos: by hand, in the table, from a store, and between processes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ddl_d2.data.datasets import VideoOptions, load_dataset
from ddl_d2.errors import EvaluationError
from ddl_d2.evaluation import (
    METRIC_NAMES,
    VIDEO_METRIC_NAMES,
    ForgeryEvaluator,
    ImageResult,
    ResultTable,
    metrics_table,
    table_from_store,
)
from ddl_d2.evaluation.functional import NO_FACE_SCORE, score_with_faces, scores_of_videos, video_score
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.writer import PredictionStoreWriter
from tests.video_files import write_mask_video, write_video


def frame(video, number, label, score, **more):
    return ImageResult(f"{video}/{number}", label, score, None, True, 4, 4, video_id=video, **more)


def test_by_hand():
    scores = [0.1 * i for i in range(11)]  # 0 .. 1; the highest tenth of eleven is one frame
    assert video_score(scores) == pytest.approx(0.5)
    assert video_score(scores, "max") == video_score(scores, "top_frames") == 1.0
    assert video_score([0.0] * 18 + [0.4, 0.8], "top_frames") == pytest.approx(0.6)  # two of twenty
    assert video_score([0.3], "top_frames") == 0.3
    with pytest.raises(ValueError, match="mean, top_frames, max, not 'median'"):
        video_score([0.3], "median")
    with pytest.raises(ValueError, match="without frames"):
        video_score([])


@pytest.mark.parametrize("rule", ["mean", "top_frames", "max"])
def test_the_order_of_frames_changes_no_bit(rule):
    scores = np.random.default_rng(0).random(1000)
    expected = video_score(scores, rule)
    for seed in range(20):
        assert video_score(np.random.default_rng(seed).permutation(scores), rule) == expected


def test_grouping():
    ids, labels, scores = scores_of_videos(["b", "a", "b", "a"], [1, 0, 1, 0], [0.9, 0.1, 0.5, 0.3])
    assert (ids, labels.tolist()) == (["a", "b"], [0, 1])
    assert scores == pytest.approx([0.2, 0.7])
    with pytest.raises(ValueError, match="video a has both"):
        scores_of_videos(["a", "a"], [0, 1], [0.5, 0.5])


def test_frames_without_a_face_are_left_out():
    assert score_with_faces([0.2, 0.9, 0.4], [True, False, True]) == pytest.approx(0.3)
    assert score_with_faces([0.2, 0.9, 0.4], [True, False, True], "max") == 0.4
    assert score_with_faces([0.2, 0.9], [False, False]) == NO_FACE_SCORE == 0.5
    with pytest.raises(ValueError, match="without frames"):
        score_with_faces([], [])
    ids, _, scores = scores_of_videos(
        ["a", "a", "b", "b"], [0, 0, 1, 1], [0.1, 0.9, 0.8, 0.2], has_face=[True, False, False, False]
    )
    assert ids == ["a", "b"]
    assert scores == pytest.approx([0.1, 0.5])


def test_a_table_with_frames_without_a_face():
    """By all frames the real r would score .5 and the fake f .3; by their faces .1 and .6; n, without a face, .5."""
    rows = [frame("r", 0, 0, 0.1), frame("r", 1, 0, 0.9, has_face=False)]
    rows += [frame("f", 0, 1, 0.6), frame("f", 1, 1, 0.0, has_face=False)]
    rows += [frame("n", i, 0, 0.9, has_face=False) for i in range(2)]
    metrics = ResultTable(rows).metrics()
    assert (metrics["video_auc"], metrics["video_accuracy"]) == (1.0, 1.0)
    assert (metrics["num_videos"], metrics["num_frames_without_face"], metrics["num_videos_without_face"]) == (3, 4, 1)
    # The frames themselves count as they are.
    assert metrics["auc"] == ResultTable([row._replace(has_face=True) for row in rows]).metrics()["auc"]
    assert "num_videos_without_face" not in ResultTable(rows[::2][:2]).metrics()


def test_a_store_says_the_same_as_the_run_that_wrote_it(tmp_path):
    for name in ("real.mp4", "fake.mp4"):
        write_video(tmp_path / "data" / name, 4)
    labels = {"real.mp4": {"label": "REAL"}, "fake.mp4": {"label": "FAKE"}}
    (tmp_path / "data/metadata.json").write_text(json.dumps(labels))
    rows, _ = load_dataset(tmp_path / "data", video=VideoOptions(2))
    outputs = [
        {"fake_score": score, "has_face": face}
        for score, face in ((0.2, True), (0.9, False), (0.1, False), (0.3, False))
    ]
    evaluator = ForgeryEvaluator(dataset_rows=rows, store=PredictionStoreWriter(tmp_path / "store"))
    evaluator.reset()
    for row, output in zip(rows, outputs, strict=True):
        evaluator.process([row | {"height": 64, "width": 64}], [output])
    metrics = evaluator.evaluate()["ddl"]
    assert metrics["video_auc"] == 1.0  # .2 of the real, .5 of the fake, without a face
    kept = PredictionStore(tmp_path / "store")
    assert kept.without_face == {
        row["image_id"] for row, output in zip(rows, outputs, strict=True) if not output["has_face"]
    }
    assert (tmp_path / "store/predictions.csv").read_text().splitlines()[0] == "image_id,fake_score,label,seconds"
    again = table_from_store(kept, rows).metrics()
    for name, value in metrics.items():
        assert again[name] == pytest.approx(value, nan_ok=True), name


def test_table():
    """Frames are ranked worse than videos: 0.5 of a fake lies below 0.6 of a real, but .7 above .35 and .4."""
    rows = [frame("r", 0, 0, 0.1), frame("r", 1, 0, 0.6), frame("f", 0, 1, 0.5), frame("f", 1, 1, 0.9)]
    rows += [frame("s", 0, 0, 0.4)]
    metrics = ResultTable(rows).metrics()
    assert tuple(metrics) == METRIC_NAMES + VIDEO_METRIC_NAMES
    assert metrics["auc"] == pytest.approx(5 / 6)  # of 2 x 3 pairs one is wrong
    assert (metrics["video_auc"], metrics["video_accuracy"], metrics["video_eer"], metrics["video_ap"]) == (1, 1, 0, 1)
    assert (metrics["num_videos"], metrics["num_images"]) == (3, 5)
    assert ResultTable(rows).metrics(video_score="max")["video_accuracy"] == pytest.approx(2 / 3)
    shuffled = ResultTable(rows[::-1] + rows[:2]).metrics()  # repeated frames count once
    assert str(shuffled) == str(metrics)  # NaN is not equal to itself
    unscored = ResultTable(row._replace(score=None) for row in rows).metrics()
    assert math.isnan(unscored["video_auc"])
    assert unscored["num_videos"] == 3


def test_table_refusals():
    rows = [frame("r", 0, 0, 0.1), frame("f", 0, 1, 0.5)]
    with pytest.raises(EvaluationError, match="video f has both"):
        ResultTable([*rows, frame("f", 1, 0, 0.5)]).metrics()
    with pytest.raises(EvaluationError, match="1 of 3 images have no video_id though others do: x"):
        ResultTable([*rows, ImageResult("x", 1, 0.5, None, True, 4, 4)]).metrics()
    with pytest.raises(EvaluationError, match="f/0 was evaluated twice"):
        ResultTable([*rows, rows[1]._replace(video_id="g")]).metrics()
    with pytest.raises(EvaluationError, match="video_score is one of"):
        ForgeryEvaluator(dataset_rows=[], video_score="median")


def test_evaluator_and_store_agree_on_a_set_of_videos(tmp_path):
    root = tmp_path / "ff"
    for name in ("001", "002"):
        write_video(root / f"original_sequences/youtube/c23/videos/{name}.mp4", size=(32, 48))
    write_video(root / "manipulated_sequences/Deepfakes/c23/videos/001_002.mp4", size=(32, 48))
    write_mask_video(root / "manipulated_sequences/Deepfakes/masks/videos/001_002.mp4", size=(32, 48))
    rows, _ = load_dataset(root, video=VideoOptions(3))
    evaluator = ForgeryEvaluator(
        dataset_rows=rows, store=PredictionStoreWriter(tmp_path / "store"), output_dir=tmp_path, video_score="max"
    )
    rng = np.random.default_rng(0)
    for row in rows:
        forged = np.zeros((32, 48), np.float32)
        forged[:, :24] = row["is_fake"]
        score = float(np.float32(rng.random()))
        evaluator.process([{**row, "height": 32, "width": 48}], [{"fake_score": score, "forgery_map": forged}])
    metrics = evaluator.evaluate()["ddl"]
    assert (metrics["num_videos"], metrics["num_images"], metrics["num_localized"]) == (3, 9, 3)
    assert metrics["f1"] > 0.9  # the mask video is lossy at its edge
    store = PredictionStore(tmp_path / "store")
    assert store.has_maps
    assert table_from_store(store, rows, workers=2).metrics(video_score="max") == metrics
    assert '"video_score": "max"' in (tmp_path / "metrics.json").read_text()


def test_each_way_of_forging_against_all_real():
    """Of two reals (.3, .6) FaceSwap's fake (.5) beats one, Deepfakes' (.9) both; one of unknown type is in neither."""
    real = [frame("r0", 0, 0, 0.1), frame("r0", 1, 0, 0.5), frame("r1", 0, 0, 0.6), frame("r1", 1, 0, 0.6)]
    fake = [frame("f", i, 1, score, forgery_type="FaceSwap") for i, score in enumerate((0.2, 0.8))]
    fake += [frame("d", i, 1, 0.9, forgery_type="Deepfakes") for i in range(2)]
    metrics = ResultTable([*real, *fake, frame("x", 0, 1, 0.0)]).metrics()
    assert tuple(metrics) == (
        *(METRIC_NAMES + VIDEO_METRIC_NAMES),
        *("auc_Deepfakes", "video_auc_Deepfakes", "num_fake_Deepfakes"),
        *("auc_FaceSwap", "video_auc_FaceSwap", "num_fake_FaceSwap"),
    )
    assert metrics["video_auc_Deepfakes"] == metrics["auc_Deepfakes"] == 1.0
    assert metrics["video_auc_FaceSwap"] == 0.5
    assert metrics["auc_FaceSwap"] == 5 / 8  # .2 beats .1; .8 beats all four
    assert metrics["num_fake_Deepfakes"] == metrics["num_fake_FaceSwap"] == 2
    table = metrics_table(metrics)
    assert "ROC AUC, Deepfakes against all real videos" in table
    assert "fake images by FaceSwap" in table
    images = ResultTable(row._replace(video_id=None) for row in real + fake).metrics()
    assert "video_auc_FaceSwap" not in images
    assert images["auc_FaceSwap"] == 5 / 8


def test_forgery_types_reach_the_evaluator_and_the_store(tmp_path):
    """The same numbers from a model's outputs and from its store."""
    methods = tmp_path / "data/manipulated_sequences"
    for name in ("original_sequences/youtube/c23/videos/0.mp4", "original_sequences/youtube/c23/videos/1.mp4"):
        write_video(tmp_path / "data" / name, 4)
    for method in ("Deepfakes", "FaceSwap"):
        write_video(methods / method / "c23/videos/0_1.mp4", 4)
    rows, _ = load_dataset(tmp_path / "data", video=VideoOptions(frames_per_video=1))
    scores = {"/0.mp4": 0.2, "/1.mp4": 0.6, "Deepfakes": 0.9, "FaceSwap": 0.4}
    with PredictionStoreWriter(tmp_path / "store") as writer:
        evaluator = ForgeryEvaluator(dataset_rows=rows, store=writer, distributed=False)
        for row in rows:
            (score,) = (value for name, value in scores.items() if name in row["image_id"])
            evaluator.process([row | {"height": 64, "width": 64}], [{"fake_score": score}])
        metrics = evaluator.evaluate()["ddl"]
    assert (metrics["video_auc_Deepfakes"], metrics["video_auc_FaceSwap"]) == (1.0, 0.5)
    again = table_from_store(PredictionStore(tmp_path / "store"), rows).metrics()
    assert (again["video_auc_Deepfakes"], again["video_auc_FaceSwap"]) == (1.0, 0.5)
