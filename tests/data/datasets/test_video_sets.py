"""Sets of videos on disk: FaceForensics++, Celeb-DF, DFDC, DFDCP, DeepfakeBench's lists."""

from __future__ import annotations

import json
import os
import pickle

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.datasets import FrameColumns, VideoOptions, load_dataset, load_video_set, register_datasets
from ddl_d2.data.datasets.check import check_row
from ddl_d2.data.loader import TrainLoader
from ddl_d2.data.mapper import ForgeryDatasetMapper
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.data.targets import read_forgery_mask
from ddl_d2.errors import DatasetError, ImageReadError
from ddl_d2.io import video as video_files
from ddl_d2.io.bad_files import TooManyBadFilesError
from ddl_d2.io.rows import read_row_image
from tests.data.datasets.dataset_folders import age, touch
from tests.video_files import cut_off, gray_of, write_mask_video, write_video

TWO = VideoOptions(frames_per_video=2)


def videos_of(rows):
    """video_id -> (label, forgery type, frames, mask relative to the root or None)."""
    found = {}
    for row in rows:
        mask = row.get("mask_file_name")
        entry = (row.get("is_fake"), row.get("forgery_type"), mask and mask.removeprefix(f"{rows.root}/"))
        found.setdefault(row["video_id"], (*entry, []))[3].append(row["frame_index"])
    return found


def names_of(rows):
    return sorted({row["video_id"].split("/")[-1] for row in rows})


@pytest.fixture(scope="module")
def ff(tmp_path_factory):
    """Ids 001 and 002 in train, 003 and 004 in test; Deepfakes with masks, FaceShifter without; one DFD video."""
    root = tmp_path_factory.mktemp("ff")
    for name in ("001", "002", "003", "004"):
        write_video(root / f"original_sequences/youtube/c23/videos/{name}.mp4")
    write_video(root / "original_sequences/actors/c23/videos/01__kitchen.mp4")
    for pair in ("001_002", "002_001", "003_004"):
        write_video(root / f"manipulated_sequences/Deepfakes/c23/videos/{pair}.mp4")
        write_mask_video(root / f"manipulated_sequences/Deepfakes/masks/videos/{pair}.mp4", size=(32, 32))
    write_video(root / "manipulated_sequences/FaceShifter/c23/videos/001_002.mp4")
    write_video(root / "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__kitchen__ABCD1234.mp4")
    (root / "train.json").write_text('[["001", "002"]]')
    (root / "splits").mkdir()
    (root / "splits/test.json").write_text('[["003", "004"]]')
    return root


def test_faceforensics_split(ff):
    rows, report = load_dataset(ff, "train", video=TWO)
    assert isinstance(rows, FrameColumns)
    # Two parts of 8 frames: their middles are 2 and 6.
    assert videos_of(rows) == {
        "original_sequences/youtube/c23/videos/001.mp4": (0, None, None, [2, 6]),
        "original_sequences/youtube/c23/videos/002.mp4": (0, None, None, [2, 6]),
        "manipulated_sequences/Deepfakes/c23/videos/001_002.mp4": (
            *(1, "Deepfakes", "manipulated_sequences/Deepfakes/masks/videos/001_002.mp4"),
            [2, 6],
        ),
        "manipulated_sequences/Deepfakes/c23/videos/002_001.mp4": (
            *(1, "Deepfakes", "manipulated_sequences/Deepfakes/masks/videos/002_001.mp4"),
            [2, 6],
        ),
        "manipulated_sequences/FaceShifter/c23/videos/001_002.mp4": (1, "FaceShifter", None, [2, 6]),
    }
    assert report.counts == {"missing_file": 1}  # FaceShifter's 002_001
    assert rows[0]["image_id"] == "original_sequences/youtube/c23/videos/001.mp4/000002"
    assert len({row["image_id"] for row in rows}) == len(rows) == 10
    assert (rows.num_videos, rows.labels.tolist(), rows.has_mask.sum()) == (5, [0] * 4 + [1] * 6, 4)


def test_faceforensics_test_split_and_methods(ff):
    rows, report = load_dataset(ff, "test", video=VideoOptions(1, methods=("Deepfakes",)))
    assert names_of(rows) == ["003.mp4", "003_004.mp4", "004.mp4"]
    assert report.counts == {"missing_file": 1}
    rows, _ = load_dataset(ff, "test", video=VideoOptions(1, methods=("DeepFakeDetection",)))
    assert names_of(rows) == ["01_02__kitchen__ABCD1234.mp4", "01__kitchen.mp4"]
    rows, _ = load_dataset(ff, video=VideoOptions(0))
    assert rows.num_videos == 10
    assert len(rows) == 80


def test_faceforensics_errors_say_what_is_missing(ff):
    for options, split, words in (
        (TWO, "valid", r"val\.json: no such file.*\[\[\"071\", \"054\"\]"),
        (VideoOptions(methods=("NeuralTextures",)), "train", r"NeuralTextures/c23: no such folder.*Deepfakes"),
        (VideoOptions(methods=("Deepfake",)), "train", "'Deepfake' is not one of Deepfakes"),
        (VideoOptions(compression="c30"), None, "'c30' is not one of raw"),
        (VideoOptions(compression="c40"), None, "no video of compression c40"),
        (VideoOptions(methods=("DeepFakeDetection",)), "train", "no official train split"),
        (TWO, "dev", "not 'dev'"),
    ):
        with pytest.raises(DatasetError, match=words):
            load_video_set("ff", ff, split, options=options)
    with pytest.raises(DatasetError, match="FRAMES_PER_VIDEO"):
        VideoOptions(frames_per_video=-1)


def test_bad_split_file(tmp_path):
    write_video(tmp_path / "original_sequences/youtube/c0/videos/001.mp4", 2)
    options = VideoOptions(compression="raw")  # its other name
    for text in ("{}", '[["1"]]', '[["../1", "2"]]', "nothing"):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(DatasetError, match=r"train\.json"):
            load_video_set("ff", tmp_path, "train", options=options)
    (tmp_path / "train.json").write_text('[["001", "002"]]')
    rows, _ = load_video_set("ff", tmp_path, "train", options=options)
    assert names_of(rows) == ["001.mp4"]


def test_video_rows_have_images_and_masks(ff):
    rows, _ = load_dataset(ff, "train", video=TWO)
    row = next(row for row in rows if "mask_file_name" in row)
    truth = read_forgery_mask(row, 64, 64)
    assert truth.resized  # the mask video is half as large
    assert truth.mask[:, :28].all()
    assert not truth.mask[:, 36:].any()
    assert check_row(row, max_pixels=10**6) == [("mask_size", f"{row['image_id']}: 64 x 64, mask 32 x 32")]


@pytest.mark.parametrize(("policy", "known"), [("skip", 2), ("score", 2), ("full", 3)])
def test_fakes_without_a_mask_keep_their_label(ff, policy, known):
    rows, _ = load_dataset(ff, "train", video=VideoOptions(1), fake_without_mask=policy)
    fakes = [row for row in rows if row["is_fake"]]
    assert len(fakes) == 3
    assert sum(read_forgery_mask(row, 64, 64) is not None for row in fakes) == known
    with pytest.raises(DatasetError, match="1 fake images have no mask"):
        load_dataset(ff, "train", video=VideoOptions(1), fake_without_mask="error")


def test_extracted_frames_come_first(tmp_path):
    base = "manipulated_sequences/Face2Face/c23"
    write_video(tmp_path / base / "videos/001_002.mp4")
    names = [f"{base}/frames/001_002/{i:03d}.png" for i in (0, 8, 16, 100)]
    touch(tmp_path, *names, f"{base}/masks/001_002/008.png")
    rows, _ = load_dataset(tmp_path, video=TWO)
    assert [(row["image_id"], row["frame_index"]) for row in rows] == [(names[1], 8), (names[3], 100)]
    assert rows[0]["mask_file_name"].endswith("masks/001_002/008.png")
    assert "mask_file_name" not in rows[1]
    assert {row["video_id"] for row in rows} == {f"{base}/frames/001_002"}


def test_columns_survive_slicing_pickling_and_the_cache(ff):
    first, _ = load_dataset(ff, "train", video=TWO)
    again, _ = load_dataset(ff, "train", video=TWO)
    for rows in (again, pickle.loads(pickle.dumps(first))):
        assert list(rows) == list(first)
    assert list(first[::3]) == list(first)[::3]
    assert first.select([7, 0]).labels.tolist() == [1, 0]
    assert "10 images, 4 real, 6 fake" in repr(first)


@pytest.fixture(scope="module")
def celeb(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeb")
    for name in ("Celeb-real/id0_0", "Celeb-real/id1_0", "YouTube-real/7", "Celeb-synthesis/id0_id1_0"):
        write_video(root / f"{name}.mp4", 4)
    write_video(root / "Celeb-synthesis/id1_id0_0.mp4", 4)
    return root


def test_celeb_df(celeb):
    # 1 is real, 0 fake.
    lines = ["1 YouTube-real/7.mp4", "0 Celeb-synthesis/id0_id1_0.mp4", "", "nonsense", "1 Celeb-real/gone.mp4"]
    (celeb / "List_of_testing_videos.txt").write_text("\r\n".join(lines))
    rows, report = load_dataset(celeb, "test", video=TWO)
    assert videos_of(rows) == {
        "YouTube-real/7.mp4": (0, None, None, [1, 3]),
        "Celeb-synthesis/id0_id1_0.mp4": (1, "Celeb-synthesis", None, [1, 3]),
    }
    assert report.counts == {"bad_line": 1, "missing_file": 1}
    rows, _ = load_dataset(celeb, "train", video=TWO)
    assert names_of(rows) == ["id0_0.mp4", "id1_0.mp4", "id1_id0_0.mp4"]
    assert load_dataset(celeb, video=TWO)[0].num_videos == 5
    with pytest.raises(DatasetError, match="not 'valid'"):
        load_dataset(celeb, "valid")


def test_celeb_df_with_labels_the_wrong_way_round(celeb):
    (celeb / "List_of_testing_videos.txt").write_text("0 YouTube-real/7.mp4\n0 Celeb-synthesis/id0_id1_0.mp4\n")
    rows, report = load_dataset(celeb, "test", video=TWO)
    assert names_of(rows) == ["id0_id1_0.mp4"]
    assert report.counts == {"conflicting_label": 1}
    assert "7.mp4" not in names_of(load_dataset(celeb, "train", video=TWO)[0])
    (celeb / "List_of_testing_videos.txt").unlink()
    with pytest.raises(DatasetError, match=r"List_of_testing_videos\.txt: no such file. Expected.*1 real, 0 fake"):
        load_dataset(celeb, "test")


def test_dfdc(tmp_path):
    for name in ("dfdc_train_part_0/a", "dfdc_train_part_0/b", "dfdc_train_part_1/c", "test/videos/x", "test/videos/y"):
        write_video(tmp_path / f"{name}.mp4", 3)
    part = {"a.mp4": {"label": "REAL", "split": "train"}, "b.mp4": {"label": "FAKE", "original": "a.mp4"}}
    part["gone.mp4"], part["odd.mp4"] = {"label": "FAKE"}, {"label": "MAYBE"}
    part["../../up.mp4"] = {"label": "FAKE"}
    (tmp_path / "dfdc_train_part_0/metadata.json").write_text(json.dumps(part))
    (tmp_path / "dfdc_train_part_1/metadata.json").write_text('{"c.mp4": {"label": "FAKE", "split": "validation"}}')
    (tmp_path / "test/labels.csv").write_text("filename,label\nx.mp4,1\ny.mp4,0\n,1\n")
    rows, report = load_dataset(tmp_path, "train", video=VideoOptions(1))
    assert {name: entry[0] for name, entry in videos_of(rows).items()} == {
        "dfdc_train_part_0/a.mp4": 0,
        "dfdc_train_part_0/b.mp4": 1,
    }
    assert report.counts == {"missing_file": 1, "bad_line": 2, "outside_root": 1}
    assert names_of(load_dataset(tmp_path, "valid", video=VideoOptions(1))[0]) == ["c.mp4"]
    rows, _ = load_dataset(tmp_path, "test", video=VideoOptions(1))
    assert [(row["image_id"], row["is_fake"]) for row in rows] == [
        ("test/videos/x.mp4/000001", 1),
        ("test/videos/y.mp4/000001", 0),
    ]
    (tmp_path / "test/labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r'labels\.csv: expected the columns "filename" and "label"'):
        load_dataset(tmp_path, "test")
    with pytest.raises(DatasetError, match=r"neither metadata\.json nor labels\.csv"):
        load_video_set("dfdc", tmp_path / "test/videos")


def test_dfdcp(tmp_path):
    write_video(tmp_path / "method_A/1/x.mp4", 3)
    write_video(tmp_path / "original_videos/1/y.mp4", 3)
    entries = {
        "method_A/1/x.mp4": {"label": "fake", "set": "test"},
        "original_videos/1/y.mp4": {"label": "real", "set": "train"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    rows, _ = load_dataset(tmp_path, "test", video=VideoOptions(1))
    assert videos_of(rows) == {"method_A/1/x.mp4": (1, "method_A", None, [1])}
    assert names_of(load_dataset(tmp_path, "train", video=VideoOptions(1))[0]) == ["y.mp4"]
    with pytest.raises(DatasetError, match='no entry has the "set" valid; found: test, train'):
        load_dataset(tmp_path, "valid")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DatasetError, match="holds a JSON list"):
        load_dataset(tmp_path, "test")


def deepfakebench(tmp_path):
    frames = [f"FF/071/{i:03d}.png" for i in range(4)]
    fakes = [f"FF\\071_054\\{i:03d}.png" for i in (2, 0, 1)]
    touch(tmp_path, *frames, *(name.replace("\\", "/") for name in fakes), "FF/masks/071_054/001.png", "C/a/0.png")
    fake = {"label": "FF-DF", "frames": fakes, "masks": ["FF/masks/071_054/001.png"]}
    content = {
        "FaceForensics++": {
            "FF-real": {"train": {"c23": {"071": {"label": "FF-real", "frames": frames}}, "c40": {}}},
            "FF-DF": {"train": {"c23": {"071_054": fake, "bad": {}, "gone": {"frames": ["FF/none.png"]}}}},
        },
        "Celeb-DF-v2": {"CelebDFv2_real": {"test": {"id0": {"frames": ["C/a/0.png"]}}}},
    }
    (tmp_path / "bench.json").write_text(json.dumps(content))
    return tmp_path / "bench.json", content


def test_deepfakebench(tmp_path):
    path, content = deepfakebench(tmp_path)
    rows, report = load_dataset(path, "train", video=TWO)
    mask = "FF/masks/071_054/001.png"
    assert [(row["image_id"], row["is_fake"], row["video_id"], row["frame_index"]) for row in rows] == [
        ("FF/071/001.png", 0, "FF-real/071", 1),
        ("FF/071/003.png", 0, "FF-real/071", 3),
        ("FF/071_054/000.png", 1, "FF-DF/071_054", 0),
        ("FF/071_054/002.png", 1, "FF-DF/071_054", 2),
    ]
    assert report.counts == {"bad_line": 1, "missing_file": 1, "without_frames": 1}
    rows, _ = load_dataset(path, "train", video=VideoOptions(0))
    assert [row.get("mask_file_name") for row in rows if row["is_fake"]] == [None, str(tmp_path / mask), None]
    # Sets other than FaceForensics++ have no level of compression.
    assert names_of(load_dataset(path, "test", video=TWO)[0]) == ["id0"]
    with pytest.raises(DatasetError, match="no valid split; found: test, train"):
        load_dataset(path, "valid")
    with pytest.raises(DatasetError, match=r"FF-DF/train has no compression c40 .*found: c23"):
        load_dataset(path, "train", video=VideoOptions(compression="c40"))
    content["Celeb-DF-v2"]["Somebody"] = content["Celeb-DF-v2"].pop("CelebDFv2_real")
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="'Somebody' is not known"):
        load_dataset(path, "test")


def test_a_video_that_cannot_be_read_is_a_row_that_fails(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 3)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    cut_off(write_video(tmp_path / "c.mp4", 30, noise=True, container_options={"movflags": "faststart"}))
    write_video(tmp_path / "d.mkv", 3)  # decoded to be counted, and that goes wrong
    count = video_files.count_frames

    def count_some(path, **limits):
        if path.endswith("d.mkv"):
            raise ImageReadError(path, "is damaged")
        return count(path, **limits)

    monkeypatch.setattr("ddl_d2.data.datasets.video.count_frames", count_some)
    labels = {name: {"label": "FAKE"} for name in ("a.mp4", "b.mp4", "c.mp4", "d.mkv")}
    (tmp_path / "metadata.json").write_text(json.dumps(labels))
    rows, report = load_dataset(tmp_path, video=VideoOptions(1))
    assert report.counts == {"unreadable_video": 3}
    assert [row["image_id"] for row in rows] == [
        *("a.mp4/000001", "b.mp4/unreadable", "c.mp4/unreadable", "d.mkv/unreadable")
    ]
    assert check_row(rows[0], max_pixels=10**6) == []
    for row in rows[1:]:
        assert [kind for kind, _ in check_row(row, max_pixels=10**6)] == ["unreadable_image"]
    with pytest.raises(ImageReadError, match=r"c\.mp4: is cut off"):
        read_row_image(rows[2])
    with pytest.raises(ImageReadError, match=r"d\.mkv: could not be read when the dataset was listed"):
        read_row_image(rows[3])
    # Training counts it as bad, and stops where that is too many.
    loader = TrainLoader(
        rows,
        mapper=ForgeryDatasetMapper(True, augmentations=[]),
        sampler=TrainingSampler(4, seed=0),
        total_batch_size=4,
        max_bad_share=0.5,
    )
    with pytest.raises(TooManyBadFilesError, match="3 of the 4 rows"):
        for _ in zip(range(20), loader, strict=False):
            pass


def test_videos_are_told_by_content_where_their_names_say_nothing(tmp_path):
    for name in ("Celeb-real/a", "Celeb-real/b.clip", "Celeb-synthesis/c.3gp", "YouTube-real/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / "x.mp4", 4).rename(tmp_path / name)
    touch(tmp_path, "Celeb-real/notes", "Celeb-real/list.txt", "YouTube-real/frames.zip")
    rows, report = load_dataset(tmp_path, video=VideoOptions(1))
    assert [(row["image_id"], row["is_fake"]) for row in rows] == [
        *[("Celeb-real/a/000002", 0), ("Celeb-real/b.clip/000002", 0)],
        *[("YouTube-real/d.mp4/000002", 0), ("Celeb-synthesis/c.3gp/000002", 1)],
    ]
    assert report.counts == {"other_file": 3}
    assert all(abs(int(read_row_image(row)[0, 0, 0]) - gray_of(2)) < 8 for row in rows)


def test_a_video_that_is_replaced_is_counted_anew(tmp_path, cache):
    write_video(tmp_path / "a.mp4", 3)
    (tmp_path / "metadata.json").write_text('{"a.mp4": {"label": "REAL"}}')

    def frames():
        age(tmp_path)
        return [row["frame_index"] for row in load_dataset(tmp_path, video=VideoOptions(0))[0]]

    assert frames() == [0, 1, 2]
    assert len(list(cache.iterdir())) == 1
    inode = (tmp_path / "a.mp4").stat().st_ino
    longer = write_video(tmp_path / "b.mp4", 5).read_bytes()
    (tmp_path / "b.mp4").unlink()
    os.utime(tmp_path, (10_000, 10_000))
    assert frames() == [0, 1, 2]
    (tmp_path / "a.mp4").write_bytes(longer)  # in place, as `ffmpeg -y` and `wget -c` do it: the folder stays as it is
    assert (tmp_path / "a.mp4").stat().st_ino == inode
    assert frames() == [0, 1, 2, 3, 4]


def test_no_index_is_kept_of_what_cannot_be_read(tmp_path, cache):
    video = cut_off(write_video(tmp_path / "a.mp4", 30, noise=True, container_options={"movflags": "faststart"}))
    (tmp_path / "metadata.json").write_text('{"a.mp4": {"label": "REAL"}}')
    age(tmp_path)
    assert load_dataset(tmp_path, video=TWO)[1].counts == {"unreadable_video": 1}
    assert not list(cache.iterdir())
    whole = write_video(tmp_path / "whole.mp4", 30, noise=True).read_bytes()
    (tmp_path / "whole.mp4").unlink()
    times = (video.stat().st_atime_ns, video.stat().st_mtime_ns)
    video.write_bytes(whole)
    os.utime(video, ns=times)
    assert len(load_dataset(tmp_path, video=TWO)[0]) == 2


def test_registration(ff, celeb, tmp_path):
    cfg = get_cfg()
    add_ddl_config(cfg)
    path, _ = deepfakebench(tmp_path)
    moved = tmp_path / "lists" / "bench.json"
    moved.parent.mkdir()
    path.rename(moved)
    sets = cfg.DATASETS
    sets.FF_ROOT, sets.FF_METHODS, sets.FRAMES_PER_VIDEO = str(ff), ["Deepfakes"], 3
    sets.CELEB_DF_ROOT, sets.DEEPFAKEBENCH_JSON, sets.DEEPFAKEBENCH_ROOT = str(celeb), str(moved), str(tmp_path)
    sets.DFDC_ROOT = str(tmp_path / "nowhere")
    register_datasets(cfg)
    assert len(DatasetCatalog.get("ff_train")) == 12  # 2 + 2 videos
    assert names_of(DatasetCatalog.get("deepfakebench_train")) == ["071", "071_054"]
    with pytest.raises(DatasetError, match=r"dataset dfdc_train: .*nowhere: no such folder \(DATASETS.DFDC_ROOT\)"):
        DatasetCatalog.get("dfdc_train")
    assert "dfdcp_train" not in DatasetCatalog
    sets.FF_ROOT = ""
    register_datasets(cfg)
    assert "ff_train" not in DatasetCatalog
    assert "celeb_df_test" in DatasetCatalog


@pytest.mark.parametrize(
    ("name", "real", "fake"),
    [
        ("faceforensics_sample", {"519.mp4", "634.mp4"}, {"519_515.mp4", "634_660.mp4"}),
        ("dfdc_videos", {"lynaeydofd.mp4"}, {"yhffcuhhjy.mp4"}),
    ],
)
def test_real_sets(shared, name, real, fake):
    rows, report = load_dataset(shared / "data" / name, video=VideoOptions(4))
    assert not report.problems
    for label, expected in ((0, real), (1, fake)):
        assert {row["video_id"].split("/")[-1] for row in rows if row["is_fake"] == label} == expected
    assert len(rows) == 4 * len(real | fake)
