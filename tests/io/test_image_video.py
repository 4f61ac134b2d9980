"""Frames of videos."""

import numpy as np
import pytest

from ddl_d2.errors import ImageReadError
from ddl_d2.io.video import iter_video_frames, read_frame
from tests.video_files import MATRICES, turn_video


def make_video(path, frames=5, size=(32, 48), audio_only=False, corner=False):
    import av

    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("aac", rate=44100)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 44100
            container.mux([*stream.encode(silence), *stream.encode(None)])
            return path
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            image = np.zeros((*size, 3), np.uint8)
            image[:, : size[1] // 2] = min(40 * index + 40, 255)
            if corner:  # the upper left one alone
                image[:] = 0
                image[: size[0] // 2, : size[1] // 2] = 200
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


def test_video_frames(tmp_path):
    frames = list(iter_video_frames(make_video(tmp_path / "a.mp4")))
    assert [index for index, _, _ in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([time for _, time, _ in frames], np.arange(5) / 25, atol=1e-6)
    for index, _, frame in frames:
        assert frame.shape == (32, 48, 3)
        assert frame.dtype == np.uint8
        assert abs(int(frame[16, 8, 0]) - (40 * index + 40)) < 8
        assert frame[16, 40, 0] < 8


@pytest.mark.parametrize("turn", MATRICES)
@pytest.mark.parametrize("size", [(32, 48), (32, 32)])
def test_video_turned_and_mirrored_by_its_display_matrix(tmp_path, turn, size):
    path = make_video(tmp_path / "a.mp4", frames=1, size=size, corner=True)
    turn_video(path, turn)
    matrix, corner = MATRICES[turn]
    for frame in (next(iter_video_frames(path))[2], read_frame(path, 0)):
        assert frame.shape[:2] == (size if matrix[0] else size[::-1])
        bright = {
            f"{above} {beside}": frame[rows, columns].mean() > 100
            for above, rows in (("upper", slice(2, 8)), ("lower", slice(-8, -2)))
            for beside, columns in (("left", slice(2, 8)), ("right", slice(-8, -2)))
        }
        assert [place for place, lit in bright.items() if lit] == [corner]


def test_video_refusals(tmp_path, rgb):
    with pytest.raises(ImageReadError, match="no video stream"):
        list(iter_video_frames(make_video(tmp_path / "sound.mp4", audio_only=True)))
    whole = make_video(tmp_path / "a.mp4", frames=20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    for name in ("cut.mp4", "noise.mp4", "empty.mp4", "none.mp4"):
        with pytest.raises(ImageReadError):
            list(iter_video_frames(tmp_path / name))
    with pytest.raises(ImageReadError, match="more than the limit"):
        list(iter_video_frames(tmp_path / "a.mp4", max_pixels=1000))


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat"])
def test_a_playlist_opens_nothing(tmp_path, name):
    make_video(tmp_path / "secret.mp4")
    playlist = {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    }[name]
    (tmp_path / name).write_text(playlist)
    with pytest.raises(ImageReadError):
        list(iter_video_frames(tmp_path / name))


def test_damage_in_a_video_comes_after_the_sound_frames(tmp_path):
    path = make_video(tmp_path / "a.avi", frames=30)
    data = path.read_bytes()
    assert len(list(iter_video_frames(path))) == 30
    for seed in range(20):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        for spot in rng.integers(0, len(data), 20):
            damaged[spot] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            for _, _, frame in iter_video_frames(path):
                assert frame.shape[2] == 3
        except ImageReadError:
            pass


def test_real_videos(shared):
    index, seconds, frame = next(iter_video_frames(shared / "data" / "dfdc_videos" / "lynaeydofd.mp4"))
    assert (index, seconds) == (0, 0.0)
    assert frame.ndim == 3


def test_a_broken_consumer_keeps_its_exception(tmp_path):
    def consume():
        for _ in iter_video_frames(make_video(tmp_path / "a.mp4")):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()
