"""A folder of tokens: what is put in comes out, by the content of the image's file, and damage is told."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import torch

from ddl_d2.data.token_cache import CachedImage, TokenCache, TokenWriter, image_key
from ddl_d2.errors import DatasetError, ImageReadError, SaveError
from ddl_d2.io.atomic import write_json
from ddl_d2.io.image import write_png

SETTINGS = {"weights": "ab" * 32, "input_size": 64}


def tokens_of(number: int, *, dtype: torch.dtype = torch.float32) -> CachedImage:
    """An image of 10 x (20 + number) with 3 tokens of 2 channels, all of the value `number`."""
    return CachedImage(
        10, 20 + number, {"tokens": torch.full((3, 2), number, dtype=dtype), "pooled": torch.full((2,), number / 2)}
    )


def key(number: int) -> bytes:
    # With zeros at the end, which NumPy's byte strings drop.
    return bytes([number]) * 2 + bytes(30)


def fill(folder, numbers, **options):
    writer = TokenWriter(folder, SETTINGS, **options)
    for number in numbers:
        writer.add(key(number), tokens_of(number))
    writer.flush()


def test_what_is_put_in_comes_out_of_any_shard(tmp_path):
    fill(tmp_path, [5, 1, 4])
    fill(tmp_path, [2, 3], shard_bytes=1)  # a shard for each
    cache = TokenCache(tmp_path)
    assert len(list(tmp_path.glob("tokens-*.safetensors"))) == 3
    assert len(cache) == 5
    assert cache.settings == SETTINGS
    for number in range(1, 6):
        found = cache.get(key(number))
        assert (found.height, found.width) == (10, 20 + number)
        assert torch.equal(found.tokens["tokens"], torch.full((3, 2), float(number)))
        assert torch.equal(found.tokens["pooled"], torch.full((2,), number / 2))
    assert key(6) not in cache
    assert cache.get(key(6)) is None


def test_the_same_image_twice_is_one(tmp_path):
    fill(tmp_path, [1, 2])
    fill(tmp_path, [2, 3])
    assert len(TokenCache(tmp_path)) == 3


def test_nothing_is_written_before_a_shard_is_full(tmp_path):
    writer = TokenWriter(tmp_path / "tokens", SETTINGS, shard_bytes=2 * 8 * 4)  # 8 numbers an image
    writer.flush()
    writer.add(key(1), tokens_of(1))
    assert not (tmp_path / "tokens").exists()
    writer.add(key(2), tokens_of(2))
    assert len(TokenCache(tmp_path / "tokens")) == 2


def test_half_precision_stays(tmp_path):
    writer = TokenWriter(tmp_path, SETTINGS)
    writer.add(key(1), tokens_of(1, dtype=torch.float16))
    writer.flush()
    assert TokenCache(tmp_path).get(key(1)).tokens["tokens"].dtype == torch.float16


def test_a_shard_can_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        fill(tmp_path, [1])
    finally:
        os.umask(before)
    (shard,) = tmp_path.glob("tokens-*")
    assert stat.S_IMODE(shard.stat().st_mode) == 0o644


def test_an_image_is_found_by_its_content(tmp_path, rng):
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    first, moved, changed = (tmp_path / name for name in ("a.png", "b/c.png", "d.png"))
    moved.parent.mkdir()
    write_png(first, pixels)
    write_png(moved, pixels)
    write_png(changed, pixels[::-1].copy())
    keys = [image_key({"file_name": str(path)}) for path in (first, moved, changed)]
    assert keys[0] == keys[1] != keys[2]


def test_frames_of_a_video_are_told_apart(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"frames")
    keys = {image_key({"file_name": str(tmp_path / "a.mp4"), "frame_index": frame}) for frame in (0, 1, 1)}
    assert len(keys) == 2


def test_a_file_that_cannot_be_read_has_no_key(tmp_path):
    with pytest.raises(ImageReadError, match="no such file"):
        image_key({"file_name": str(tmp_path / "none.png")})


def test_a_folder_without_tokens_says_how_to_fill_it(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no tokens .* fill it with `ddl-d2 cache-tokens"):
        TokenCache(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_damaged_settings_are_told(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        TokenCache(tmp_path)


@pytest.mark.parametrize("kept", [0, 20, 200])
def test_a_shard_cut_short_is_told(tmp_path, kept):
    fill(tmp_path, [1, 2])
    (shard,) = tmp_path.glob("tokens-*")
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(DatasetError, match=r"damaged shard .* delete it and run `ddl-d2 cache-tokens` again"):
        TokenCache(tmp_path)


def test_a_disk_that_is_full_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    writer = TokenWriter(tmp_path, SETTINGS)
    writer.add(key(1), tokens_of(1))
    write_json(tmp_path / "settings.json", SETTINGS)
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(SaveError, match=r"No space left on device. The shards written before are whole"):
        writer.flush()
    assert not list(tmp_path.glob("tokens-*"))


def test_other_settings_are_refused_in_words(tmp_path):
    other = {"weights": "cd" * 32, "input_size": 64, "precision": "float16"}
    fill(tmp_path, [1])
    writer = TokenWriter(tmp_path, other)
    writer.add(key(2), tokens_of(2))
    with pytest.raises(DatasetError, match="precision None there, float16 here; weights abababababab... there, cdcdc"):
        writer.flush()
    assert len(TokenCache(tmp_path)) == 1
