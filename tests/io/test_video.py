"""Single frames of videos, and how many there are."""

from __future__ import annotations

import multiprocessing
import shutil

import av
import numpy as np
import pytest

from ddl_d2.errors import ImageReadError
from ddl_d2.io import open_video
from ddl_d2.io.image import write_png
from ddl_d2.io.open_video import close_videos
from ddl_d2.io.rows import read_row_image, read_row_mask, read_row_size
from ddl_d2.io.video import count_frames, iter_chosen_frames, iter_video_frames, read_frame, spread_frames
from tests.video_files import (
    cut_off,
    gray_of,
    write_broadcast,
    write_dropped,
    write_mask_video,
    write_sound,
    write_trimmed,
    write_video,
)


@pytest.fixture(autouse=True)
def _closed():
    yield
    close_videos()


# Keyframes every 5; frames decoded in another order than shown, also across keyframes; frames of unlike length.
KINDS = {
    "mpeg4.mp4": {"g": "5"},
    "b_frames.mp4": {"codec": "libx264", "g": "5", "bf": "2", "x264-params": "open-gop=1"},
    "variable.mkv": {"codec": "libx264", "g": "4", "bf": "2", "times": [0, 1, 2, 9, 10, 30, 31, 50, 70, 71, 72, 99]},
    "intra.avi": {"codec": "mjpeg"},
}


def make(tmp_path, name, frames=12):
    options = dict(KINDS[name])
    if options.get("codec", "mpeg4") not in av.codecs_available:
        pytest.skip(f"no encoder {options['codec']}")
    return write_video(tmp_path / name, frames, **options)


@pytest.mark.parametrize("name", KINDS)
def test_a_frame_is_the_one_that_playing_gives(tmp_path, name):
    path = make(tmp_path, name)
    played = [frame for _, _, frame in iter_video_frames(path)]
    assert len(played) == count_frames(path) == 12
    for index in [0, 11, 5, 6, 7, 7, 4, 10, 3, 0, 9, 11]:
        frame = read_frame(path, index)
        np.testing.assert_array_equal(frame, played[index])
        assert abs(int(frame[32, 32, 0]) - gray_of(index)) < 8
    chosen = list(iter_chosen_frames(path, [1, 6, 11]))
    assert [index for index, _, _ in chosen] == [1, 6, 11]
    times = {index: time for index, time, _ in iter_video_frames(path)}
    assert [time for _, time, _ in chosen] == [times[index] for index in (1, 6, 11)]


def test_frames_without_times_are_counted(tmp_path, monkeypatch):
    path = make(tmp_path, "mpeg4.mp4")
    none = open_video.FrameIndex(np.empty(0, np.int64), np.empty(0, np.int64))
    monkeypatch.setattr(open_video, "_frame_index", lambda container, stream: none)
    for index in (3, 2, 11):
        assert abs(int(read_frame(path, index)[0, 0, 0]) - gray_of(index)) < 8
    with pytest.raises(ImageReadError, match="has 12 frames, but frame 12"):
        read_frame(path, 12)


@pytest.mark.parametrize("index", [-1, 12, 10**9])
def test_a_frame_that_does_not_exist(tmp_path, index):
    with pytest.raises(ImageReadError, match=rf"has 12 frames, but frame {index} was asked for"):
        read_frame(make(tmp_path, "mpeg4.mp4"), index)


def test_seeking_decodes_only_from_the_keyframe(tmp_path):
    path = write_video(tmp_path / "long.mp4", 30, g="5")
    video = open_video.OpenVideo(path, 10**6)
    decoded = []
    decode = video._container.decode

    class Counting:
        def __getattr__(self, name):
            return getattr(container, name)

        def decode(self, stream):
            for frame in decode(stream):
                decoded.append(frame.pts)
                yield frame

    container, video._container = video._container, Counting()
    video.read(28)
    assert len(decoded) <= 5
    video.read(29)  # goes on where it stopped
    assert len(decoded) <= 6
    video.close()


def test_videos_that_are_changed_are_opened_again(tmp_path):
    path = write_video(tmp_path / "a.mp4", 8)
    assert read_frame(path, 0)[0, 0, 0] < 40
    shutil.copy(write_mask_video(tmp_path / "b.mp4", 3), path)
    assert read_frame(path, 0)[0, 0, 0] > 200


def test_few_videos_stay_open(tmp_path):
    paths = [write_video(tmp_path / f"{i}.mp4", 2) for i in range(6)]
    for path in paths * 2:
        read_frame(path, 1)
    assert len(open_video._cache.videos) == open_video._MAX_OPEN


def _reads(path, index, queue):
    queue.put(int(read_frame(path, index)[0, 0, 0]))


def test_a_forked_process_has_files_of_its_own(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20, g="20")
    read_frame(path, 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_reads, args=(path, 15, queue))
    child.start()
    assert abs(queue.get(timeout=30) - gray_of(15)) < 8
    child.join(30)
    assert child.exitcode == 0
    assert abs(int(read_frame(path, 3)[0, 0, 0]) - gray_of(3)) < 8


def test_count_does_not_trust_a_header_that_lies(tmp_path):
    path = make(tmp_path, "intra.avi")
    data = bytearray(path.read_bytes())
    length = data.index(b"strh") + 8 + 32  # dwLength of the video stream's header
    data[length : length + 4] = (500).to_bytes(4, "little")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 500
    assert count_frames(path) == 12


def test_count_without_a_header(tmp_path):
    path = write_video(tmp_path / "a.mkv", 9)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    assert count_frames(path) == 9


def test_frames_that_a_camera_dropped_are_no_frames(tmp_path):
    path = write_dropped(tmp_path / "a.avi", 12, dropped=(3, 7, 8))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 12
    assert count_frames(path) == len(list(iter_video_frames(path))) == 9
    shown = [0, 1, 2, 4, 5, 6, 9, 10, 11]
    for index, value in enumerate(shown):
        assert abs(int(read_frame(path, index)[0, 0, 0]) - gray_of(value)) < 4


@pytest.mark.parametrize("lead", [1, 2, 5])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_that_an_edit_list_cuts_away_are_no_frames(tmp_path, lead, codec):
    source = write_video(tmp_path / "whole.mp4", 12, codec=codec, g="6", bf="2" if codec == "libx264" else "0")
    path = write_trimmed(tmp_path / "a.mp4", source, lead)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 12
    assert count_frames(path) == len(list(iter_video_frames(path))) == 12 - lead
    for index in (0, 11 - lead):
        assert abs(int(read_frame(path, index)[0, 0, 0]) - gray_of(index + lead)) < 8


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_frames_before_the_first_keyframe_are_no_frames(tmp_path, name, codec):
    source = write_video(tmp_path / f"whole_{name}", 24, codec=codec, g="8", bf="2")
    path = write_broadcast(tmp_path / name, source, 3)
    played = [frame for _, _, frame in iter_video_frames(path)]
    assert count_frames(path) == len(played) < 21
    for index in (0, 7, len(played) - 1):
        np.testing.assert_array_equal(read_frame(path, index), played[index])


CUT = {
    "faststart.mp4": {"container_options": {"movflags": "faststart"}},
    "h264.mov": {"codec": "libx264", "container_options": {"movflags": "faststart"}},
    "fragments.mp4": {"g": "3", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "plain.mp4": {},
    "a.avi": {},
    "a.mkv": {"codec": "libx264"},
    "a.webm": {"codec": "libvpx"},
    "a.wmv": {},
    "a.flv": {"codec": "flv"},
}


@pytest.mark.parametrize("share", [0.6, 0.95])
@pytest.mark.parametrize("name", CUT)
def test_a_video_that_is_cut_off_is_refused(tmp_path, name, share):
    path = write_video(tmp_path / name, 30, noise=True, **CUT[name])
    assert count_frames(path) == len(list(iter_video_frames(path))) == 30
    cut_off(path, share)
    for read in (count_frames, lambda p: read_frame(p, 0), lambda p: next(iter_video_frames(p))):
        with pytest.raises(
            ImageReadError, match="moov atom|is cut off: it has [0-9]+ bytes, but" if name == "plain.mp4" else "cut off"
        ):
            read(path)


def test_videos_that_do_not_say_how_long_they_are(tmp_path):
    live = write_video(tmp_path / "live.mkv", 12, container_options={"live": "1"})
    assert len(list(iter_video_frames(live))) == 12
    stream = write_video(tmp_path / "a.ts", 12, codec="mpeg2video")
    assert len(list(iter_video_frames(stream))) == count_frames(stream) == 12


def test_files_that_are_no_videos(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    for name, reason in (
        ("sound", "no video stream"),
        ("empty", "empty"),
        ("noise", "cannot be decoded"),
        ("no", "no such"),
    ):
        for read in (count_frames, lambda path: read_frame(path, 0)):
            with pytest.raises(ImageReadError, match=rf"{name}\.mp4: .*{reason}"):
                read(tmp_path / f"{name}.mp4")
    path = write_video(tmp_path / "a.mp4")
    for read in (count_frames, lambda path, **limit: read_frame(path, 0, **limit)):
        with pytest.raises(ImageReadError, match="64 x 64 pixels, more than the limit of 4095"):
            read(path, max_pixels=4095)


def test_damage_never_raises_anything_else(tmp_path):
    path = write_video(tmp_path / "a.avi", 20)
    data = path.read_bytes()
    read = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        for spot in rng.integers(0, len(data), 20):
            damaged[spot] = rng.integers(256)
        path.write_bytes(damaged)
        for index in (19, 3):
            try:
                assert read_frame(path, index).shape[2] == 3
                read += 1
            except ImageReadError:
                pass
    assert read > 0


def test_spread():
    # Four equal parts of 10 are 2.5 wide: their middles are 1.25, 3.75, 6.25, 8.75.
    assert spread_frames(10, 4).tolist() == [1, 3, 6, 8]
    assert spread_frames(300, 32)[[0, -1]].tolist() == [4, 295]
    assert spread_frames(3, 4).tolist() == spread_frames(3, 0).tolist() == [0, 1, 2]
    assert spread_frames(5, 5).tolist() == [0, 1, 2, 3, 4]
    for total in range(1, 60):
        for count in range(1, total + 1):
            frames = spread_frames(total, count)
            assert len(frames) == count
            assert (np.diff(frames) >= 1).all()
            assert frames[-1] < total


def test_rows_of_videos_and_of_images(tmp_path):
    write_video(tmp_path / "a.mp4", size=(32, 48))
    write_mask_video(tmp_path / "mask.mp4", size=(32, 48))
    row = {"file_name": str(tmp_path / "a.mp4"), "frame_index": 6, "mask_file_name": str(tmp_path / "mask.mp4")}
    assert abs(int(read_row_image(row)[0, 0, 0]) - gray_of(6)) < 8
    assert read_row_size(row) == (32, 48)
    mask = read_row_mask(row)
    assert mask.dtype == bool
    assert mask[:, :22].all()
    assert not mask[:, 26:].any()

    write_png(tmp_path / "f/012.png", np.full((5, 7, 3), 9, np.uint8))
    write_png(tmp_path / "f/m.png", np.eye(5, 7, dtype=bool))
    row = {"file_name": str(tmp_path / "f/012.png"), "frame_index": 12, "mask_file_name": str(tmp_path / "f/m.png")}
    assert read_row_image(row).max() == 9
    assert read_row_size(row) == (5, 7)
    assert read_row_mask(row).sum() == 5


def test_a_real_video(shared):
    path = shared / "data/dfdc_videos/yhffcuhhjy.mp4"
    total = count_frames(path)
    for index, _, frame in iter_video_frames(path):
        if index in (5, 100, total - 1):
            np.testing.assert_array_equal(read_frame(path, index), frame)
    assert index == total - 1
