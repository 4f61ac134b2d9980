"""Layouts of audio-visual datasets: LAV-DF, AV-Deepfake1M, DDL-AV."""

from __future__ import annotations

import json
import pickle

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddl_d2.config.load import read_config
from ddl_d2.data.build import build_test_loader, build_train_loader, check_dataset_names
from ddl_d2.data.datasets import index_cache
from ddl_d2.data.datasets.catalog import register_datasets
from ddl_d2.data.datasets.check import check_row
from ddl_d2.data.datasets.clip_columns import ClipColumns
from ddl_d2.data.datasets.clips import truth_of
from ddl_d2.data.datasets.load import clip_set_at, datasets_at, load_clip_set, load_dataset
from ddl_d2.errors import ConfigError, DatasetError
from tests.clip_files import tone, write_talk
from tests.data.datasets.dataset_folders import age, touch


def write_labels(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def entry(file, periods=(), *, video=False, audio=False, **more):
    fields = {"file": file, "n_fakes": len(periods), "fake_periods": list(periods), "duration": 3.0, "original": None}
    return (
        fields | {"modify_video": video, "modify_audio": audio, "split": file.split("/")[0], "video_frames": 75} | more
    )


@pytest.fixture
def lav_df(tmp_path):
    root = touch(tmp_path / "lav", "train/0.mp4", "train/1.mp4", "dev/2.mp4", "test/3.mp4", "test/4.mp4")
    write_labels(
        root / "metadata.json",
        [
            entry("train/0.mp4"),
            entry("train/1.mp4", [[0.5, 1.25], [2, 2.5]], video=True),
            entry("dev/2.mp4", [[1.0, 1.6]], audio=True),
            entry("test/3.mp4", [[1.0, 1.6]], audio=True, video=True),
            entry("test/4.mp4", [[0.4, 2.0]], visual_fake_segments=[[0.4, 1]], audio_fake_segments=[[0.8, 2.0]]),
        ],
    )
    return root


def test_lav_df(lav_df):
    rows, report = load_dataset(lav_df, "train")
    assert isinstance(rows, ClipColumns)
    assert report.problems == {}
    real, fake = rows
    name = str(lav_df / "train/0.mp4")
    nothing = {"segments": [], "video_segments": [], "audio_segments": []}
    same = {"image_id": "train/0.mp4", "video_id": "train/0.mp4", "is_fake": 0, "num_frames": 75}
    assert real == {"file_name": name, **same, **nothing}
    assert fake["segments"] == fake["video_segments"] == [[0.5, 1.25], [2.0, 2.5]]
    assert fake["audio_segments"] == []
    assert fake["forgery_type"] == "visual_modified"
    (sound,) = load_dataset(lav_df, "valid")[0]
    assert (sound["video_segments"], sound["audio_segments"]) == ([], [[1.0, 1.6]])
    both, apart = load_dataset(lav_df, "test")[0]
    assert both["forgery_type"] == apart["forgery_type"] == "both_modified"
    assert both["video_segments"] == both["audio_segments"] == [[1.0, 1.6]]
    assert (apart["video_segments"], apart["audio_segments"]) == ([[0.4, 1.0]], [[0.8, 2.0]])
    assert len(load_dataset(lav_df)[0]) == 5
    assert datasets_at(lav_df) == [(str(lav_df), None)]


def test_the_short_table_of_lav_df_will_do(lav_df):
    (lav_df / "metadata.json").rename(lav_df / "metadata.min.json")
    assert len(load_clip_set("lav_df", lav_df, "test")[0]) == 2
    (lav_df / "metadata.min.json").unlink()
    with pytest.raises(DatasetError, match=r"metadata\.json nor metadata\.min\.json"):
        load_clip_set("lav_df", lav_df, "test")


def test_rows_are_packed(lav_df):
    rows, _ = load_dataset(lav_df)
    again = pickle.loads(pickle.dumps(rows))
    assert list(again) == list(rows)
    chosen = rows.select([4, 1])
    assert [row["image_id"] for row in chosen] == ["test/4.mp4", "train/1.mp4"]
    assert chosen[0] == rows[4]
    assert rows.labels.tolist() == [0, 1, 1, 1, 1]
    assert "5 clips, 1 real, 4 fake" in repr(rows)


def test_an_index_is_kept_of_clips(lav_df, monkeypatch):
    age(lav_df)
    first, report = load_dataset(lav_df, "test")
    assert report.index is None
    monkeypatch.setattr(index_cache, "_store", None)
    second, report = load_dataset(lav_df, "test")
    assert report.index is not None
    assert isinstance(second, ClipColumns)
    assert list(second) == list(first)


def test_labels_that_are_none_are_told(lav_df):
    good = entry("train/0.mp4")
    bad = [
        entry("train/1.mp4", [[2.0, 1.0]], video=True),
        entry("train/missing.mp4"),
        entry("../secret.mp4"),
        {"split": "train"},
        entry("train/1.mp4", [[0.0, float("nan")]], audio=True),
        entry("train/0.mp4"),
    ]
    write_labels(lav_df / "metadata.json", [good, *bad])
    rows, report = load_clip_set("lav_df", lav_df, None)
    assert [row["image_id"] for row in rows] == ["train/0.mp4"]
    assert report.problems == {"bad_line": 3, "duplicate_entry": 1, "missing_file": 1, "outside_root": 1}


def test_a_fake_without_segments_has_none_that_are_known(lav_df):
    write_labels(lav_df / "metadata.json", [entry("train/1.mp4", n_fakes=2, video=True)])
    (row,) = load_dataset(lav_df, "train")[0]
    assert row["is_fake"] == 1
    assert "segments" not in row
    assert "forgery_type" not in row


def clip_of_1m(file, kind="real", video=(), audio=()):
    both = sorted([*video, *audio])
    lists = {"visual_fake_segments": list(video), "audio_fake_segments": list(audio), "fake_segments": both}
    return {"file": file, "modify_type": kind, "original": None, "split": "x", "video_frames": 100, **lists}


@pytest.mark.parametrize("per_clip", [False, True])
def test_av_deepfake1m(tmp_path, per_clip):
    root = touch(tmp_path, "train/id1/a/real.mp4", "train/id1/a/fake.mp4", "val/id2/b/fake.mp4", "test/000.mp4")
    train = [
        clip_of_1m("id1/a/real.mp4"),
        clip_of_1m("id1/a/fake.mp4", "both_modified", [[0.5, 1.0]], [[0.5, 1.0], [2.0, 2.4]]),
    ]
    val = [clip_of_1m("id2/b/fake.mp4", "audio_modified", audio=[[1.0, 1.5]])]
    if per_clip:
        for number, row in enumerate(train):
            write_labels(root / f"train_metadata/id1/a/{number}.json", row)
        write_labels(root / "val/id2/b/fake.json", val[0])
    else:
        write_labels(root / "train_metadata.json", train)
        write_labels(root / "val_metadata.json", val)
    (root / "test_files.txt").write_text("000.mp4\n")
    real, fake = sorted(load_dataset(root, "train")[0], key=lambda row: row["is_fake"])
    assert real["image_id"] == "train/id1/a/real.mp4"
    assert fake["video_segments"] == [[0.5, 1.0]]
    assert fake["audio_segments"] == [[0.5, 1.0], [2.0, 2.4]]
    assert fake["forgery_type"] == "both_modified"
    if not per_clip:
        assert len(load_dataset(root)[0]) == 3
        (sound,) = load_dataset(root, "valid")[0]
        assert sound["forgery_type"] == "audio_modified"
    (test,) = load_dataset(root, "test")[0]
    assert set(test) == {"file_name", "image_id", "video_id"}


def ddl_av_clip(root, split, folder, name, video=(), audio=()):
    touch(root, f"{split}_data/{folder}/{name}.mp4")
    lists = {"visual_fake_segments": list(video), "audio_fake_segments": list(audio)}
    label = {"file": f"{folder}/{name}.mp4", "split": split, "modify_type": folder, "video_frames": 100, **lists}
    write_labels(root / f"{split}_metadata_workshop/{folder}/{name}.json", label)


def test_ddl_av(tmp_path):
    ddl_av_clip(tmp_path, "train", "real_audio_real_visual", "a")
    ddl_av_clip(tmp_path, "train", "fake_audio_fake_visual", "b", [[0, 1.0]], [[2.0, 3.0]])
    ddl_av_clip(tmp_path, "train", "fake_audio_real_visual", "c")
    ddl_av_clip(tmp_path, "val", "real_audio_fake_visual", "d", [[0.2, 0.4]])
    touch(tmp_path, "test_data/x.mp4", "test_data/y.mp4")
    rows = {row["image_id"].split("/")[-1]: row for row in load_dataset(tmp_path, "train")[0]}
    assert rows["a.mp4"]["is_fake"] == 0
    assert rows["b.mp4"]["segments"] == [[0.0, 1.0], [2.0, 3.0]]
    # Nothing says which part of the sound is forged: all of it, 100 frames of 1/25 s.
    assert rows["c.mp4"]["audio_segments"] == rows["c.mp4"]["segments"] == [[0.0, 4.0]]
    assert rows["c.mp4"]["video_segments"] == []
    (valid,) = load_dataset(tmp_path, "valid")[0]
    assert valid["forgery_type"] == "visual_modified"
    assert [row["image_id"] for row in load_dataset(tmp_path, "test")[0]] == ["test_data/x.mp4", "test_data/y.mp4"]


def test_missing_parts_are_named(tmp_path):
    touch(tmp_path, "train_data/a.mp4")
    with pytest.raises(DatasetError, match="train_metadata_workshop"):
        load_clip_set("ddl_av", tmp_path, None)
    with pytest.raises(DatasetError, match="test_data"):
        load_clip_set("ddl_av", tmp_path, "test")
    with pytest.raises(DatasetError, match=r"test_files\.txt"):
        load_clip_set("av_deepfake1m", tmp_path, "test")
    with pytest.raises(DatasetError, match=r"train_metadata\.json"):
        load_clip_set("av_deepfake1m", tmp_path, "train")


def test_other_layouts_are_not_taken_for_clips(tmp_path):
    touch(tmp_path / "dfdc", "a.mp4")
    write_labels(tmp_path / "dfdc/metadata.json", {"a.mp4": {"label": "REAL", "split": "train"}})
    assert not isinstance(load_dataset(tmp_path / "dfdc")[0], ClipColumns)
    # Neither by a folder's name, nor by a list beside labeled images.
    touch(tmp_path / "a", "train_data/real/a.png", "train_data/fake/b.png", "test_files.txt")
    assert clip_set_at(str(tmp_path / "a")) == ""
    touch(tmp_path / "b", "train/real/a.png", "train/fake/b.png")
    write_labels(tmp_path / "b/metadata.json", [entry("train/a.mp4")])
    assert clip_set_at(str(tmp_path / "b")) == ""


def clip_config(root, *opts):
    cfg = read_config("two_cores/mesorch_efficientnet_lite0", ["DATASETS.LAV_DF_ROOT", str(root), *opts])
    register_datasets(cfg)
    return cfg


def test_they_are_registered_where_their_key_is_set(lav_df):
    clip_config(lav_df)
    assert len(DatasetCatalog.get("lav_df_test")) == 2
    assert MetadataCatalog.get("lav_df_test").evaluator_type == "ddl_temporal"
    clip_config("")
    assert "lav_df_test" not in DatasetCatalog
    with pytest.raises(ConfigError, match=r"set DATASETS\.LAV_DF_ROOT"):
        check_dataset_names(["lav_df_test"])


def test_clips_and_images_are_not_mixed_up(lav_df):
    cfg = clip_config(lav_df, "DATASETS.TRAIN", "('lav_df_train',)")
    with pytest.raises(ConfigError, match="holds clips, but Mesorch sees images"):
        build_train_loader(cfg)
    with pytest.raises(ConfigError, match="holds clips"):
        build_test_loader(cfg, "lav_df_test")


def test_a_deep_check_decodes_clips(tmp_path):
    path = write_talk(tmp_path / "a.mp4", frames=10, sound=tone(0.4, 16000)[None], sound_rate=16000)
    row = {"file_name": str(path), "image_id": "a.mp4", "segments": [[0.1, 0.3]]}
    assert check_row(row, max_pixels=10**6) == []
    (found,) = check_row(row | {"segments": [[0.1, 3.0]]}, max_pixels=10**6)
    assert found == ("segment_outside", "a.mp4: 3.00 s, the clip ends at 0.40 s")
    path.write_bytes(b"nothing")
    ((kind, _),) = check_row(row, max_pixels=10**6)
    assert kind == "unreadable_video"


def test_the_truth_of_a_clip_is_looked_up_by_its_path_or_name(lav_df):
    table = lav_df / "metadata.json"
    assert truth_of(table, lav_df / "test/4.mp4") == {"video": ((0.4, 1.0),), "audio": ((0.8, 2.0),)}
    assert truth_of(table, "/elsewhere/1.mp4") == {"video": ((0.5, 1.25), (2.0, 2.5)), "audio": ()}
    with pytest.raises(DatasetError, match="0 entries"):
        truth_of(table, "/elsewhere/9.mp4")
