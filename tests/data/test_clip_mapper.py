"""From a dataset dict to what a system sees of a clip."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from ddl_d2.config.load import read_config
from ddl_d2.config.span_options import SpanOptions
from ddl_d2.data import build_faces
from ddl_d2.data.build import build_clip_mapper, build_test_loader, build_train_loader
from ddl_d2.data.clip_mapper import ClipMapper
from ddl_d2.data.datasets.catalog import register_datasets
from ddl_d2.data.forge_spans import SpanForger, shrunk_for_forging
from ddl_d2.data.loader import TrainStream, seeded
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.errors import ConfigError, DatasetError, ImageReadError
from ddl_d2.io.bad_files import TooManyBadFilesError
from ddl_d2.io.clip import Clip
from ddl_d2.io.write_video import write_clip
from tests.clip_files import tone, write_talk
from tests.conftest import synthetic_face
from tests.data.datasets.test_clip_sets import entry, write_labels
from tests.forging.test_voice import talk


def face_finder(image):
    height, width = image.shape[:2]
    return [synthetic_face(center=(width / 2, height / 2), width=0.4 * width)]


def write_texture(path, seconds=1.2, seed=0, size=(96, 96)):
    """A clip of a texture that moves, with talk."""
    rng, frames = np.random.default_rng(seed), round(25 * seconds)
    wide = rng.integers(0, 256, (size[0] // 8, 40, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    write_clip(path, Clip(np.stack([wide[:, k : k + size[1]] for k in range(frames)]), talk(seconds, seed=seed)))
    return path


@pytest.fixture
def row(tmp_path):
    return {"file_name": str(write_texture(tmp_path / "a.mp4")), "image_id": "a.mp4", "video_id": "a.mp4", "is_fake": 0}


def test_what_a_row_holds(row):
    fake = row | {
        "is_fake": 1,
        "segments": [[0.2, 0.48], [0.6, 1.0]],
        "video_segments": [[0.2, 0.48]],
        "audio_segments": [[0.6, 1.0]],
        "forgery_type": "both_modified",
    }
    seen = ClipMapper(False)(fake)
    assert seen["frames"].shape == (3, 30, 96, 96)
    assert seen["frames"].dtype == torch.uint8
    assert seen["frames"].is_contiguous()
    assert seen["audio"].shape == (19200,)
    assert seen["audio"].dtype == torch.float32
    assert (seen["num_frames"], seen["fps"], seen["duration"], seen["has_audio"]) == (30, 25.0, 1.2, True)
    torch.testing.assert_close(seen["segments"], torch.tensor([[5.0, 12.0], [15.0, 25.0]]))
    torch.testing.assert_close(seen["audio_segments"], torch.tensor([[15.0, 25.0]]))
    assert (seen["image_id"], seen["forgery_type"], seen["is_fake"]) == ("a.mp4", "both_modified", 1)
    assert "annotations" not in seen


def test_what_is_not_known_is_absent(row):
    del row["is_fake"]
    seen = ClipMapper(False)(row)
    assert "segments" not in seen
    assert "is_fake" not in seen
    with pytest.raises(DatasetError, match="no real/fake label"):
        ClipMapper(True)(row)
    real = ClipMapper(True)(row | {"is_fake": 0})
    assert real["segments"].shape == real["video_segments"].shape == (0, 2)
    unknown = ClipMapper(True)(row | {"is_fake": 1})
    assert "segments" not in unknown
    assert unknown["is_fake"] == 1


def test_frames_are_resized(row):
    for resize in ("bicubic", "nearest", "area"):
        assert ClipMapper(False, size=48, resize=resize)(row)["frames"].shape == (3, 30, 48, 48)
    with pytest.raises(ConfigError, match="RESIZE"):
        ClipMapper(False, resize="lanczos")
    with pytest.raises(ConfigError, match="AUDIO_CHANNEL"):
        ClipMapper(False, channel="left")


def test_bicubic_is_torchs(row):
    """As the published code resizes: bicubic without smoothing."""
    whole = ClipMapper(False, size=96)(row)["frames"][:, 0]
    wanted = torch.nn.functional.interpolate(whole[None].float(), (64, 64), mode="bicubic")[0].clamp(0, 255)
    made = ClipMapper(False, size=64)(row)["frames"][:, 0].float()
    assert (made - wanted).abs().max() <= 1.5


def test_a_clip_is_cut_to_its_face(tmp_path):
    row = {"file_name": str(write_texture(tmp_path / "a.mp4", size=(96, 160))), "image_id": "a.mp4"}

    def finder(image):
        return [synthetic_face(center=(110.0, 48.0), width=40.0)]

    cut = ClipMapper(False, finder=finder, face_margin=0.0, size=40)(row)["frames"]
    whole = ClipMapper(False, size=96)(row)["frames"]
    assert cut.shape == (3, 30, 40, 40)
    assert whole.shape == (3, 30, 96, 96)
    none = ClipMapper(False, finder=lambda image: [], size=96)(row)["frames"]
    torch.testing.assert_close(none, whole)


def test_long_training_clips_are_cut_and_their_segments_with_them(tmp_path):
    path = write_talk(tmp_path / "a.mp4", frames=30, sound=tone(1.2, 16000)[None], sound_rate=16000)
    row = {
        "file_name": str(path),
        "image_id": "a",
        "is_fake": 1,
        "segments": [[0.0, 0.4]],
        "video_segments": [[0, 0.4]],
    }
    mapper, labels = ClipMapper(True, train_seconds=0.4), set()
    for seed in range(12):
        with seeded(seed, 0):
            seen = mapper(row)
        assert seen["num_frames"] == 10
        assert seen["audio"].shape == (6400,)
        start = round((float(seen["frames"][:, 0].float().mean()) - 16) / 8)
        wanted = [[0.0, 10.0 - start]] if start < 10 else []
        assert seen["segments"].tolist() == wanted
        assert seen["is_fake"] == len(wanted)
        labels.add(seen["is_fake"])
    assert labels == {0, 1}
    assert ClipMapper(False, train_seconds=0.4)(row)["num_frames"] == 30


def test_mirrored_clips(row):
    plain, mirrored = ClipMapper(True)(row), ClipMapper(True, flip_prob=1.0)(row)
    torch.testing.assert_close(mirrored["frames"], plain["frames"].flip(3))
    torch.testing.assert_close(mirrored["audio"], plain["audio"])


@pytest.fixture
def forging():
    options = SpanOptions(decoy_prob=0.0, span_seconds=(0.2, 0.5))
    return lambda probability, rows=(): ClipMapper(True, forge=SpanForger(face_finder, options, probability, rows))


def test_real_clips_are_forged_on_the_way(row, forging):
    plain = forging(0.0)(row)
    assert (plain["is_fake"], len(plain["segments"])) == (0, 0)
    forged_kinds = set()
    for seed in range(8):
        with seeded(seed, 0):
            seen = forging(1.0, [row])(row)
        assert seen["is_fake"] == 1
        assert len(seen["segments"]) >= 1
        changed = (seen["frames"] != plain["frames"]).flatten(2).any(2).any(0)
        inside = torch.zeros(30, dtype=torch.bool)
        for start, end in seen["video_segments"].int().tolist():
            inside[start:end] = True
        assert not (changed & ~inside).any()
        heard = (seen["audio"] != plain["audio"]).reshape(30, 640).any(1)
        assert heard.any() == (len(seen["audio_segments"]) > 0)
        forged_kinds.add((len(seen["video_segments"]) > 0, len(seen["audio_segments"]) > 0))
    assert forged_kinds == {(True, False), (False, True), (True, True)}


def test_fakes_are_left_as_they_are(row, forging):
    fake = row | {"is_fake": 1, "segments": [[0.2, 0.4]]}
    seen = forging(1.0)(fake)
    torch.testing.assert_close(seen["segments"], torch.tensor([[5.0, 10.0]]))
    torch.testing.assert_close(seen["frames"], ClipMapper(True)(row)["frames"])


def test_a_sample_is_the_same_whenever_it_is_drawn(row, forging):
    def frames():
        stream = TrainStream([row], mapper=forging(0.7), sampler=TrainingSampler(1, seed=3), batch_size=4)
        made = iter(stream)
        return [next(made) for _ in range(4)]

    for first, second in zip(frames(), frames(), strict=True):
        torch.testing.assert_close(first["frames"], second["frames"])
        torch.testing.assert_close(first["audio"], second["audio"])
        torch.testing.assert_close(first["segments"], second["segments"])


def test_what_cannot_be_forged_is_a_bad_file(tmp_path, forging):
    path = write_talk(tmp_path / "short.mp4", frames=4)
    with pytest.raises(ImageReadError, match="too short"):
        forging(1.0)({"file_name": str(path), "image_id": "short.mp4", "is_fake": 0})


def test_large_frames_are_forged_small():
    assert shrunk_for_forging(np.zeros((448, 672, 3), np.uint8)).shape == (224, 336, 3)
    assert shrunk_for_forging(np.zeros((96, 96, 3), np.uint8)).shape == (96, 96, 3)


@pytest.fixture
def clip_set(tmp_path):
    """LAV-DF's layout: two real clips, one fake, and one file that is none."""
    for number in range(3):
        write_texture(tmp_path / f"train/{number}.mp4", seed=number)
    (tmp_path / "train/bad.mp4").write_bytes(b"no clip")
    rows = [entry(f"train/{number}.mp4") for number in range(2)]
    rows += [entry("train/2.mp4", [[0.2, 0.6]], video=True), entry("train/bad.mp4")]
    write_labels(tmp_path / "metadata.json", rows)
    return tmp_path


def clip_config(root, *opts):
    keys = {"DATASETS.LAV_DF_ROOT": root, "DATASETS.TRAIN": "('lav_df_train',)", "INPUT.CLIP.ENABLED": True}
    keys |= {"SOLVER.IMS_PER_BATCH": 4, "DATALOADER.NUM_WORKERS": 0, "SEED": 1, "TEST.BATCH_SIZE": 2}
    flat = [str(part) for pair in keys.items() for part in pair]
    cfg = read_config("two_cores/mesorch_efficientnet_lite0", [*flat, *opts])
    register_datasets(cfg)
    return cfg


@pytest.mark.parametrize("workers", ["0", "2"])
def test_clips_go_through_the_training_loader(clip_set, workers):
    cfg = clip_config(clip_set, "DATALOADER.MAX_BAD_SHARE", "0.3", "DATALOADER.NUM_WORKERS", workers)
    batches = iter(build_train_loader(cfg))
    seen = [row for _ in range(3) for row in next(batches)]
    assert len(seen) == 12
    assert {row["image_id"] for row in seen} == {f"train/{number}.mp4" for number in range(3)}
    assert all(row["frames"].shape == (3, 30, 96, 96) for row in seen)


def test_a_clip_that_cannot_be_read_is_counted_and_above_the_limit_training_stops(clip_set):
    loader = build_train_loader(clip_config(clip_set, "DATALOADER.MAX_BAD_SHARE", "0.0"))
    with pytest.raises(TooManyBadFilesError, match=r"bad\.mp4"):
        list(islice(loader, 10))


def test_clips_of_any_length_share_a_test_batch_and_bad_ones_say_why(clip_set):
    write_texture(clip_set / "train/1.mp4", seconds=0.8)
    batches = list(build_test_loader(clip_config(clip_set), "lav_df_train"))
    assert [len(batch) for batch in batches] == [2, 2]
    rows = [row for batch in batches for row in batch]
    assert [row["num_frames"] for row in rows if "frames" in row] == [30, 20, 30]
    (bad,) = [row for row in rows if "frames" not in row]
    assert isinstance(bad["unreadable"], ImageReadError)


def test_real_clips_alone_need_forging(clip_set):
    write_labels(clip_set / "metadata.json", [entry("train/0.mp4"), entry("train/1.mp4")])
    with pytest.raises(DatasetError, match=r"INPUT\.SPANS\.ENABLED True"):
        build_train_loader(clip_config(clip_set))


def test_the_keys_of_forging_are_checked(clip_set, monkeypatch):
    monkeypatch.setattr(build_faces, "build_face_finder", lambda cfg: face_finder)
    on = ("INPUT.SPANS.ENABLED", "True")
    mapper = build_clip_mapper(clip_config(clip_set, *on, "INPUT.SPANS.SPAN_COUNT", "[2, 3]"), True)
    assert mapper.forge.options.span_count == (2, 3)
    assert len(mapper.forge.rows) == 4
    assert build_clip_mapper(clip_config(clip_set, *on), False).forge is None
    with pytest.raises(ConfigError, match="INPUT.SPANS: unknown visual_kinds"):
        build_clip_mapper(clip_config(clip_set, *on, "INPUT.SPANS.VISUAL_KINDS", "['magic']"), True)
    with pytest.raises(ConfigError, match=r"INPUT\.SPANS\.PROB"):
        build_clip_mapper(clip_config(clip_set, *on, "INPUT.SPANS.PROB", "2.0"), True)
    with pytest.raises(ConfigError, match=r"INPUT\.FACES\.LANDMARKS True"):
        build_clip_mapper(clip_config(clip_set, *on, "INPUT.FACES.LANDMARKS", "False"), True)
