import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from torch import nn

from ddl_d2.data.image_io import ImageReadError, iter_video_frames, read_image, write_png
from ddl_d2.data.transforms import ResizeToFit
from ddl_d2.inference.pictures import InputError, expand_inputs, output_names, plan_outputs, predict_pictures
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.inference.video import VideoWriter, annotate_video
from ddl_d2.modeling.weights import CheckpointError


class RednessModel(nn.Module):
    """Calls red pixels forged; keeps what it was given."""

    def forward(self, batched_inputs):
        self.seen = batched_inputs
        outputs = []
        for row in batched_inputs:
            red = (row["image"][0].float() / 255)[None, None]
            full = nn.functional.interpolate(red, size=(row["height"], row["width"]), mode="bilinear")[0, 0]
            outputs.append({"fake_score": float(full.max()), "forgery_map": full})
        assert not self.training
        return outputs


@pytest.fixture
def predictor():
    return ForgeryPredictor(RednessModel(), ResizeToFit(32, 64))


def red_square(height=40, width=60):
    image = np.zeros((height, width, 3), np.uint8)
    image[5:25, 10:30, 0] = 255
    return image


def test_what_the_model_sees(predictor):
    prediction = predictor(red_square())
    (row,) = predictor.model.seen
    assert row["image"].dtype == torch.uint8
    assert row["image"].shape == (3, 32, 48)
    assert (row["height"], row["width"]) == (40, 60)
    assert row["image"][0].max() == 255  # red first
    assert row["image"][2].max() == 0
    assert prediction["forgery_map"].shape == (40, 60)
    assert prediction["fake_score"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(predictor, image):
    with pytest.raises(ValueError, match="uint8"):
        predictor(image)


def test_any_augmentation():
    predictor = ForgeryPredictor(RednessModel(), T.ResizeShortestEdge([20, 20], 100))
    assert predictor(red_square())["forgery_map"].shape == (40, 60)


def test_detectron2_default_predictor_agrees_if_given_bgr(tiny_cfg, tmp_path):
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96")
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # at its size: nothing is resized
    ours = ForgeryPredictor.from_cfg(cfg)(image)
    theirs = DefaultPredictor(cfg)(image[:, :, ::-1])
    assert ours["fake_score"] == theirs["fake_score"]
    assert torch.equal(ours["forgery_map"], theirs["forgery_map"])
    assert len(ours["instances"]) == len(theirs["instances"])


def test_weights_are_not_optional(tiny_cfg):
    with pytest.raises(CheckpointError, match="MODEL.WEIGHTS is empty"):
        ForgeryPredictor.from_cfg(tiny_cfg())


def test_pictures_to_files(tmp_path, predictor):
    write_png(tmp_path / "in/a.png", red_square())
    (tmp_path / "in/b.png").write_bytes(b"broken")
    write_png(tmp_path / "in/deep/a.png", np.zeros((30, 20, 3), np.uint8))
    paths = expand_inputs([str(tmp_path / "in")])
    overlays = plan_outputs(paths, tmp_path / "out")
    rows, failed = predict_pictures(zip(paths, overlays, strict=True), predictor, about={"model": {"name": "redness"}})
    assert [error.path for error in failed] == [str(tmp_path / "in/b.png")]
    assert [row["verdict"] for row in rows] == ["fake", "real"]
    assert [path.name for path in overlays] == ["in__a.png", "b.png", "deep__a.png"]
    assert len(list((tmp_path / "out").iterdir())) == 4  # two overlays, two JSON files, nothing half-written
    for row, overlay in zip(rows, (overlays[0], overlays[2]), strict=True):
        assert json.loads(overlay.with_suffix(".json").read_text()) == row
        assert read_image(overlay).ndim == 3
    assert rows[0]["regions"][0]["box"] == pytest.approx([10, 5, 30, 25], abs=1)


def test_a_name_that_is_no_text(tmp_path, predictor):
    source = Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png"))
    try:
        write_png(source, red_square())
    except OSError:
        pytest.skip("this file system takes only names that are text")
    rows, _ = predict_pictures([(source, tmp_path / "out.png")], predictor)
    assert rows[0]["file"].endswith("\\udcff.png")
    assert json.loads((tmp_path / "out.json").read_text()) == rows[0]


def test_output_names_differ():
    paths = [
        Path(p)
        for p in ("a/x.jpg", "b/x.jpg", "a/x.png", "y.jpg", "Y.png", "predictions.jpg", "c/d/x.jpg", "e/d/x.jpg")
    ]
    names = output_names(paths)
    assert len({name.lower() for name in names}) == len(names)
    assert names[:3] == ["a__x", "b__x", "x.png"]
    assert "predictions" not in names
    assert output_names([Path("a/one.jpg"), Path("b/two.jpg")]) == ["one", "two"]


def test_inputs_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for text in (str(tmp_path / "none.png"), str(tmp_path / "*.png"), str(tmp_path / "empty")):
        with pytest.raises(InputError):
            expand_inputs([text])


def test_globs_folders_and_files_once_each(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    found = expand_inputs([str(tmp_path / "b.png"), str(tmp_path / "*.png"), str(tmp_path), str(tmp_path / "c.txt")])
    assert [path.name for path in found] == ["b.png", "a.JPG", "c.txt"]


def test_outputs_that_would_do_harm(tmp_path):
    write_png(tmp_path / "a.png", red_square())
    (tmp_path / "file.txt").write_text("")
    paths = [tmp_path / "a.png"]
    assert plan_outputs(paths, tmp_path / "new.png") == [tmp_path / "new.png"]
    for output in (tmp_path, tmp_path / "a.png", tmp_path / "file.txt", tmp_path / "new.jpg"):
        with pytest.raises(InputError):
            plan_outputs(paths, output)
    with pytest.raises(InputError, match="2 pictures"):
        plan_outputs([*paths, tmp_path / "b.png"], tmp_path / "new.png")


def write_clip(path, frames=6, size=(48, 65)):
    with VideoWriter(path) as writer:
        for i in range(frames):
            image = np.zeros((*size, 3), np.uint8)
            image[8:40, 8:40, 0] = 255 if i % 2 else 0
            writer.write(image, i / 10)


def test_video(tmp_path, predictor):
    write_clip(tmp_path / "clip.mp4")
    head = annotate_video(
        tmp_path / "clip.mp4", predictor, tmp_path / "o/v.json", video=tmp_path / "o/v.mp4", about={"model": 1}
    )
    report = json.loads((tmp_path / "o/v.json").read_text())
    assert {key: value for key, value in report.items() if key != "frames"} == head
    assert [row["frame"] for row in report["frames"]] == list(range(6))
    assert [row["seconds"] for row in report["frames"]] == pytest.approx([i / 10 for i in range(6)], abs=0.002)
    assert [row["score"] > 0.5 for row in report["frames"]] == [False, True] * 3
    assert head["score"] == pytest.approx(np.mean([row["score"] for row in report["frames"]]), abs=1e-4)
    frames = list(iter_video_frames(tmp_path / "o/v.mp4"))
    assert len(frames) == 6
    assert frames[0][2].shape == (48, 64, 3)  # H.264 wants even sides
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["v.json", "v.mp4"]


def test_a_bad_video_leaves_what_was_there(tmp_path, predictor):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "v.json").write_text("earlier")
    with pytest.raises(ImageReadError):
        annotate_video(tmp_path / "bad.mp4", predictor, tmp_path / "v.json", video=tmp_path / "v.mp4")
    assert (tmp_path / "v.json").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4", "v.json"]
