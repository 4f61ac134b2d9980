import json
import os
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from ddl_d2.data import build_faces
from ddl_d2.data.build import build_test_loader
from ddl_d2.data.datasets import register_datasets
from ddl_d2.data.transforms.resize import ResizeToFit
from ddl_d2.errors import CheckpointError, ImageReadError, InputError
from ddl_d2.faces.cache import CachedFaceFinder
from ddl_d2.faces.crop import FaceCropper, FaceWindow
from ddl_d2.faces.face import Face
from ddl_d2.inference.images import expand_inputs, output_names, plan_outputs, predict_images
from ddl_d2.inference.predictor import ForgeryPredictor
from ddl_d2.inference.video import annotate_video
from ddl_d2.io.image import read_image, write_png
from ddl_d2.io.video import iter_video_frames
from ddl_d2.io.write_video import VideoWriter
from ddl_d2.modeling.test_time.faces import OnFaceCrops


class RednessModel(nn.Module):
    """Calls red pixels forged; keeps what it was given."""

    def forward(self, batched_inputs):
        self.seen = batched_inputs
        outputs = []
        for row in batched_inputs:
            red = (row["image"][0].float() / 255)[None, None]
            full = nn.functional.interpolate(red, size=(row["height"], row["width"]), mode="bilinear")[0, 0]
            nothing = Instances((row["height"], row["width"]))
            outputs.append({"fake_score": float(full.max()), "forgery_map": full, "instances": nothing})
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


def two_windows(image):
    return [FaceWindow((10, 5, 30, 25), None), FaceWindow((40, 0, 60, 40), None)]


def test_on_face_crops():
    predictor = ForgeryPredictor(OnFaceCrops(RednessModel()), ResizeToFit(32, 64), crop=two_windows)
    prediction = predictor(red_square())
    (row,) = predictor.model.model.seen  # the last of the crops, one at a time
    assert (row["height"], row["width"], row["image"].shape) == (40, 20, (3, 64, 32))
    # Red is x from 10 to 30, y from 5 to 25: all of the first window, nothing of the second.
    expected = torch.zeros(40, 60)
    expected[5:25, 10:30] = 1
    torch.testing.assert_close(prediction["forgery_map"], expected)
    assert prediction["fake_score"] == 1.0
    assert [face["fake_score"] for face in prediction["faces"]] == [1.0, 0.0]
    upside_down = predictor(red_square()[::-1])  # a view with a negative stride
    assert upside_down["forgery_map"].shape == (40, 60)


@pytest.mark.parametrize("found", [True, False])
def test_whether_a_face_was_found_is_told(found, synthetic_face):
    """Cropped by the finder's word, to the whole image if there is none."""
    cropper = FaceCropper(lambda image: [synthetic_face()] if found else [])
    predictor = ForgeryPredictor(OnFaceCrops(RednessModel()), ResizeToFit(32, 64), crop=cropper)
    for output in (predictor(red_square()), predictor.predict_batch([red_square()])[0]):
        assert output["has_face"] is found
        assert 0 <= output["fake_score"] <= 1
        assert output["forgery_map"].shape == (40, 60)
    assert "has_face" not in ForgeryPredictor(RednessModel(), ResizeToFit(32, 64))(red_square())


def test_the_numbers_of_each_face_are_written(tmp_path):
    write_png(tmp_path / "a.png", red_square())
    predictor = ForgeryPredictor(OnFaceCrops(RednessModel()), ResizeToFit(32, 64), crop=two_windows)
    predict_images([(tmp_path / "a.png", tmp_path / "o.png")], predictor)
    said = json.loads((tmp_path / "o.json").read_text())
    assert said["faces"] == [{"box": [10, 5, 30, 25], "score": 1.0}, {"box": [40, 0, 60, 40], "score": 0.0}]


def save_untrained(cfg, path):
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, path)
    cfg.MODEL.WEIGHTS = str(path)


def equal_to_the_loader(cfg, dataset_name):
    """Predictions of the loader's rows and of the same images by the predictor, compared; returns the former."""
    predictor = ForgeryPredictor.from_cfg(cfg)
    outputs = []
    for (row,) in build_test_loader(cfg, dataset_name):
        with torch.no_grad():
            outputs += predictor.model([row])
        alone = predictor(read_image(row["file_name"]))
        assert [face["window"] for face in alone["faces"]] == [crop["window"] for crop in row["crops"]]
        assert alone["fake_score"] == outputs[-1]["fake_score"]
        assert torch.equal(alone["forgery_map"], outputs[-1]["forgery_map"])
    return outputs


def test_the_predictor_cuts_as_the_evaluation_does(tiny_cfg, tiny_set, tmp_path, monkeypatch):
    faces = [Face((2.0, 3.0, 22.0, 33.0), np.full((5, 2), 9.0)), Face((40.0, 20.0, 60.0, 50.0), np.full((5, 2), 50.0))]

    class Finder:
        settings: ClassVar = {"name": "test"}

        def __call__(self, image):
            return faces

    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: CachedFaceFinder(Finder(), tmp_path / "faces"))
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "64", "INPUT.FACE_CROP.ENABLED", "True",
                   "DATASETS.DDL_ROOT", str(tiny_set))  # fmt: skip
    register_datasets(cfg)
    save_untrained(cfg, tmp_path / "model.pth")
    outputs = equal_to_the_loader(cfg, "ddl_i_valid")
    assert len(outputs) == 6
    # A quarter of 20 × 30 more on each side, within 64 × 80: x from 2 - 5, y from 3 - 7.5 (to even: -4), to 27 and 40.
    assert outputs[0]["faces"][0]["window"] == (0, 0, 27, 40)
    assert outputs[0]["forgery_map"][41:, :34].max() == 0


@pytest.mark.usefixtures("needs_dlib")
def test_real_photographs(tiny_cfg, shared, tmp_path):
    """From files with several faces to one prediction each, with dlib, by the landmark rule."""
    (tmp_path / "photos").mkdir()
    for name in ("dlib_2008_001322.jpg", "dlib_2009_004587.jpg"):
        shutil.copyfile(shared / "data" / "multi_face_photos" / name, tmp_path / "photos" / name)
    cfg = tiny_cfg(
        "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96", "INPUT.FACE_CROP.ENABLED", "True",
        "INPUT.FACE_CROP.RULE", "landmarks", "INPUT.FACES.CACHE", str(tmp_path / "faces"),
        "DATASETS.FOLDER_ROOT", str(tmp_path / "photos"),
    )  # fmt: skip
    register_datasets(cfg)
    save_untrained(cfg, tmp_path / "model.pth")
    outputs = equal_to_the_loader(cfg, "folder")
    assert len(outputs) == 2
    assert len(list((tmp_path / "faces").rglob("*.json"))) == 2
    for output in outputs:
        windows = [face["window"] for face in output["faces"]]
        assert len(windows) >= 2
        covered = torch.zeros_like(output["forgery_map"], dtype=torch.bool)
        for x0, y0, x1, y1 in windows:
            covered[y0:y1, x0:x1] = True
        assert not covered.all()
        assert output["forgery_map"][~covered].max() == 0
        assert output["forgery_map"][covered].min() > 0
        assert 0 <= output["fake_score"] <= 1


def test_weights_are_not_optional(tiny_cfg):
    with pytest.raises(CheckpointError, match="MODEL.WEIGHTS is empty"):
        ForgeryPredictor.from_cfg(tiny_cfg())


def test_images_to_files(tmp_path, predictor):
    write_png(tmp_path / "in/a.png", red_square())
    (tmp_path / "in/b.png").write_bytes(b"broken")
    write_png(tmp_path / "in/deep/a.png", np.zeros((30, 20, 3), np.uint8))
    paths = expand_inputs([str(tmp_path / "in")]).images
    overlays = plan_outputs(paths, tmp_path / "out")
    rows, failed = predict_images(zip(paths, overlays, strict=True), predictor, about={"model": {"name": "redness"}})
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
    rows, _ = predict_images([(source, tmp_path / "out.png")], predictor)
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
    found = expand_inputs(
        [str(tmp_path / "b.png"), str(tmp_path / "*.png"), str(tmp_path), str(tmp_path / "c.txt")]
    ).images
    assert [path.name for path in found] == ["b.png", "a.JPG", "c.txt"]


def test_outputs_that_would_do_harm(tmp_path):
    write_png(tmp_path / "a.png", red_square())
    (tmp_path / "file.txt").write_text("")
    paths = [tmp_path / "a.png"]
    assert plan_outputs(paths, tmp_path / "new.png") == [tmp_path / "new.png"]
    for output in (tmp_path, tmp_path / "a.png", tmp_path / "file.txt", tmp_path / "new.jpg"):
        with pytest.raises(InputError):
            plan_outputs(paths, output)
    with pytest.raises(InputError, match="2 images"):
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
