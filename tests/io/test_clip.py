"""Clips: one stated outcome for each kind of picture and sound."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.errors import ImageReadError
from ddl_d2.io.clip import Clip, read_clip, read_sound
from ddl_d2.io.write_video import write_clip
from tests.clip_files import tone, write_talk
from tests.video_files import cut_off, gray_of, turn_video, write_sound


def frame_numbers(clip: Clip) -> list[int]:
    """Which frames of `write_talk` a clip shows, told by their gray."""
    grays = clip.frames.mean(axis=(1, 2, 3))
    return [round((gray - gray_of(0)) / (gray_of(1) - gray_of(0))) for gray in grays]


def begins(audio: np.ndarray) -> float:
    """When a tone begins, seconds."""
    return float(np.flatnonzero(np.abs(audio) > 0.1)[0]) / 16000


def main_frequency(audio: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(audio)).argmax()) * 16000 / len(audio)


def test_frames_of_25_a_second_are_taken_as_they_are(tmp_path):
    clip = read_clip(write_talk(tmp_path / "a.mp4", frames=10))
    assert frame_numbers(clip) == list(range(10))
    assert clip.duration == pytest.approx(0.4)
    assert clip.frames.dtype == np.uint8


def test_other_rates_give_the_frame_on_show_at_the_middle_of_each_step(tmp_path):
    # 50 a second: at .02, .06, .10, ... s frames 1, 3, 5, ... have just come on show.
    fast = read_clip(write_talk(tmp_path / "fast.mp4", frames=20, times=[k / 50 for k in range(20)]))
    assert frame_numbers(fast)[:9] == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    # 10 a second, each shown for .1 s: middles .02 .06 | .10 .14 .18 | .22 .26 | .30 .34 .38
    slow = read_clip(write_talk(tmp_path / "slow.mkv", frames=4, times=[k / 10 for k in range(4)]))
    assert frame_numbers(slow)[:8] == [0, 0, 1, 1, 1, 2, 2, 3]


def test_variable_frame_rate(tmp_path):
    # On show from 0, .04, .20, .21 s: the middles .02, .06, .10, .14, .18, .22.
    clip = read_clip(write_talk(tmp_path / "v.mkv", frames=4, times=[0, 0.04, 0.2, 0.21]))
    assert frame_numbers(clip)[:6] == [0, 1, 1, 1, 1, 3]


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (44100, 2), (48000, 6)])
def test_sound_of_any_rate_and_layout(tmp_path, rate, channels):
    sound = np.tile(tone(1.0, rate), (channels, 1))
    clip = read_clip(write_talk(tmp_path / "a.mkv", frames=25, sound=sound, sound_rate=rate, sound_codec="pcm_s16le"))
    assert clip.has_audio
    assert clip.audio.shape == (16000,)
    assert clip.audio.dtype == np.float32
    assert main_frequency(clip.audio) == pytest.approx(440, abs=2)
    assert np.abs(clip.audio[2000:14000]).max() == pytest.approx(0.5, abs=0.02)


def test_the_mean_of_the_channels_or_the_first(tmp_path):
    sound = np.stack([tone(1.0, 16000), np.zeros(16000, np.float32)])
    path = write_talk(tmp_path / "a.mkv", frames=25, sound=sound, sound_rate=16000, sound_codec="pcm_s16le")
    assert np.abs(read_clip(path).audio).max() == pytest.approx(0.25, abs=0.01)
    assert np.abs(read_clip(path, channel="first").audio).max() == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="channel"):
        read_clip(path, channel="last")


@pytest.mark.parametrize("channels", [6, 8])
def test_sound_of_many_channels(tmp_path, channels):
    """7.1, whose eight separate planes PyAV counts as nine."""
    sound = np.stack([tone(0.5, 16000), *np.zeros((channels - 1, 8000), np.float32)])
    path = write_talk(tmp_path / "a.mkv", frames=12, sound=sound, sound_rate=16000, sound_codec="pcm_s16le")
    assert np.abs(read_clip(path).audio).max() == pytest.approx(0.5 / channels, abs=0.01)


@pytest.mark.parametrize("start", [0.0, 0.24])
def test_sound_stands_where_its_time_stamps_put_it(tmp_path, start):
    sound = tone(0.6, 16000, start=0.1)[None]
    path = tmp_path / "late.mkv"
    write_talk(path, frames=25, sound=sound, sound_rate=16000, sound_codec="pcm_s16le", sound_start=start)
    clip = read_clip(path)
    assert begins(clip.audio) == pytest.approx(start + 0.1, abs=0.003)
    assert not clip.audio[: round(start * 16000)].any()


def test_sound_longer_than_the_picture_is_cut_and_shorter_is_followed_by_silence(tmp_path):
    long = write_talk(tmp_path / "long.mp4", frames=10, sound=tone(2.0, 44100)[None])
    assert read_clip(long).audio.shape == (6400,)
    short = write_talk(tmp_path / "short.mp4", frames=25, sound=tone(0.4, 44100)[None])
    clip = read_clip(short)
    assert clip.audio.shape == (16000,)
    assert np.abs(clip.audio[:6000]).max() > 0.4
    assert not clip.audio[8000:].any()


def test_a_clip_without_sound_is_silent_and_says_so(tmp_path):
    path = write_talk(tmp_path / "a.mp4", frames=5)
    clip = read_clip(path)
    assert not clip.has_audio
    assert not clip.audio.any()
    assert clip.audio.shape == (3200,)
    assert read_sound(path, seconds=1) is None


def test_what_is_no_clip_is_refused(tmp_path):
    with pytest.raises(ImageReadError, match="no video stream"):
        read_clip(write_sound(tmp_path / "sound.mp4"))
    with pytest.raises(ImageReadError, match="cut off"):
        read_clip(cut_off(write_talk(tmp_path / "cut.mp4", sound=tone(1.0, 44100)[None])))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageReadError):
        read_clip(tmp_path / "text.mp4")
    with pytest.raises(ImageReadError, match="no such file"):
        read_clip(tmp_path / "none.mp4")


def test_a_turned_phone_video_stands_upright(tmp_path):
    path = write_talk(tmp_path / "a.mp4", frames=3, size=(64, 48))
    turn_video(path, "a quarter turn clockwise")
    assert read_clip(path).frames.shape == (3, 48, 64, 3)


def test_damage_has_one_error(tmp_path):
    """A file with any of its bytes changed is read, or refused with the one error."""
    whole = write_talk(tmp_path / "a.mp4", frames=6, sound=tone(0.3, 16000)[None], sound_rate=16000).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 8):
            data[place] = rng.integers(256)
        (tmp_path / "b.mp4").write_bytes(data)
        try:
            clip = read_clip(tmp_path / "b.mp4", max_seconds=30)
        except ImageReadError as error:
            outcomes.append(error.reason)
        else:
            assert np.isfinite(clip.audio).all()
            outcomes.append("")
    assert len(outcomes) == 60
    assert any(outcomes)


def test_a_clip_that_is_too_long_is_refused_before_it_fills_the_memory(tmp_path):
    # One frame an hour after the other: a freeze of 90 000 frames.
    path = write_talk(tmp_path / "freeze.mkv", frames=2, times=[0, 3600])
    with pytest.raises(ImageReadError, match="longer than 10 s"):
        read_clip(path, max_seconds=10)
    assert len(read_clip(write_talk(tmp_path / "short.mp4", frames=10), max_seconds=0.4).frames) == 10


def test_frames_are_fitted_as_they_are_decoded(tmp_path):
    clip = read_clip(write_talk(tmp_path / "a.mp4", frames=3, size=(64, 48)), fit=lambda frame: frame[::2, ::2])
    assert clip.frames.shape == (3, 32, 24, 3)


def test_a_part_of_a_clip_has_its_own_sound():
    clip = Clip(np.zeros((10, 4, 4, 3), np.uint8), np.arange(6400, dtype=np.float32))
    part = clip.part(2, 5)
    assert len(part.frames) == 3
    assert part.audio[0] == 2 * 640
    assert len(part.audio) == 3 * 640


def test_a_clip_that_is_written_reads_back(tmp_path):
    sound = tone(1.0, 16000, start=0.5)
    frames = np.stack([np.full((48, 64, 3), gray_of(k), np.uint8) for k in range(25)])
    write_clip(tmp_path / "o" / "a.mp4", Clip(frames, sound))
    back = read_clip(tmp_path / "o" / "a.mp4")
    assert frame_numbers(back) == list(range(25))
    assert back.has_audio
    assert begins(back.audio) == pytest.approx(0.5, abs=0.003)
    lag = np.correlate(back.audio[4000:12000], sound[3900:12100], "valid").argmax() - 100
    assert abs(lag) <= 1
    write_clip(tmp_path / "silent.mp4", Clip(frames, sound, has_audio=False))
    assert not read_clip(tmp_path / "silent.mp4").has_audio
    assert sorted(path.name for path in tmp_path.rglob("*.mp4*")) == ["a.mp4", "silent.mp4"]


def test_a_clip_that_fails_leaves_nothing_behind(tmp_path):
    frames = np.zeros((2, 48, 64, 3), np.float64)  # no picture that an encoder takes
    with pytest.raises(ValueError):
        write_clip(tmp_path / "a.mp4", Clip(frames, np.zeros(1280, np.float32)))
    assert list(tmp_path.iterdir()) == []


def test_real_phone_and_broadcast_clips(shared):
    """DFDC's are 29.97 and 30.02 frames a second, one of them upright; GRID's sound is MP2."""
    folder = shared / "data" / "dfdc_videos"
    clip = read_clip(folder / "lynaeydofd.mp4", fit=lambda frame: frame[::40, ::40])
    assert clip.frames.shape == (250, 27, 48, 3)
    assert clip.audio.shape == (160000,)
    assert clip.audio.std() > 0.005
    grid = read_clip(shared / "data" / "grid" / "speaker_1" / "bbaf2n.mpg", fit=lambda frame: frame[::8, ::8])
    assert len(grid.frames) == 75
    assert grid.audio.shape == (48000,)
