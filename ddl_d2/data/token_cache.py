"""A folder of tokens: what a frozen encoder makes of each image, computed once and read ever after.

Without augmentation an image that goes through frozen weights gives the same tokens every time. The folder holds

    settings.json               what the tokens depend on besides the images, plain values
    tokens-<hex>.safetensors    a shard: for each of n images its key (`keys`, uint8 n×32), its height and width as
                                stored (`sizes`, int32 n×2), and its tokens: tensors by name, n×...

Shards are written whole or not at all, never changed, and named after the settings and the keys in them, so that a
filling that was stopped loses only the shard it was at, and several processes may fill one folder. They are
memory-mapped: of a shard only those images are read that are asked for.

An image's key is the sha256 of its file's content (`image_key`). A file that was changed has no tokens; one that was
moved, or stands in two datasets, has those it had.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddl_d2.errors import DatasetError, SaveError
from ddl_d2.io.atomic import replacing, write_json
from ddl_d2.io.file_kinds import file_kind
from ddl_d2.io.guard import guard, regular_file

SETTINGS = "settings.json"
SHARD_BYTES = 256 * 2**20
"""A shard is written once its tokens take this much."""

_OPEN_SHARDS = 256
_KEY_BYTES = 32


class CachedImage(NamedTuple):
    """What a cache holds of an image.

    Attributes:
        height: pixels, of the image as stored.
        width: likewise.
        tokens: the encoder's tensors by name, views of the file on disk.
    """

    height: int
    width: int
    tokens: dict[str, Tensor]


def image_key(row: Mapping[str, Any]) -> bytes:
    """Compute what an image's tokens are found by: its file's sha256, of a video's frame also of its number.

    Args:
        row: a dataset dict.

    Raises:
        ImageReadError: the file cannot be read.
    """
    path = row["file_name"]
    with guard(path), regular_file(path) as file:
        digest = hashlib.file_digest(file, "sha256")
    if file_kind(path) == "video":
        digest.update(f"#{row['frame_index']}".encode())
    return digest.digest()


class TokenCache:
    """The tokens in a folder, as they were when it was opened; cheap to pickle and to fork.

    Attributes:
        folder: where they lie.
        settings: what they depend on besides the images.

    Raises:
        DatasetError: there is no such folder, or something in it is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        self._shards = sorted(self.folder.glob("tokens-*.safetensors"))
        keys = [_shard(str(path))["keys"].numpy() for path in self._shards]
        every = np.concatenate([np.zeros((0, _KEY_BYTES), np.uint8), *keys])
        # As text: NumPy's bytes lose their zeros at the end.
        names = np.array([key.tobytes().hex() for key in every], dtype=f"S{2 * _KEY_BYTES}")
        places = np.array([(s, i) for s, part in enumerate(keys) for i in range(len(part))], np.int32).reshape(-1, 2)
        self._keys, first = np.unique(names, return_index=True)
        self._places = places[first]

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def get(self, key: bytes) -> CachedImage | None:
        """Read what there is of an image, by its `image_key`; None if there is nothing."""
        place = self._find(key)
        if place is None:
            return None
        shard, number = place
        tensors = _shard(str(self._shards[shard]))
        height, width = tensors["sizes"][number].tolist()
        tokens = {name: value[number] for name, value in tensors.items() if name not in ("keys", "sizes")}
        return CachedImage(height, width, tokens)

    def _find(self, key: bytes) -> tuple[int, int] | None:
        name = key.hex().encode()
        at = int(np.searchsorted(self._keys, np.bytes_(name)))
        if at == len(self._keys) or self._keys[at] != name:
            return None
        shard, number = self._places[at].tolist()
        return shard, number


class TokenWriter:
    """Adds tokens to a folder, a shard at a time; `flush` writes the last.

    Args:
        folder: made once there is something to write.
        settings: what the tokens depend on besides the images, plain values; the same as the folder's, if it has some.
        shard_bytes: see `SHARD_BYTES`.
    """

    def __init__(
        self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = Path(folder)
        self.shard_bytes = shard_bytes
        self._settings = dict(settings)
        self._images: dict[bytes, CachedImage] = {}
        self._bytes = 0

    def add(self, key: bytes, image: CachedImage) -> None:
        """Keep the tokens of an image.

        Raises:
            SaveError: a shard was full and cannot be written.
        """
        self._images[key] = image
        self._bytes += sum(value.nbytes for value in image.tokens.values())
        if self._bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is kept as a shard, and have it on the disk.

        Raises:
            SaveError: it cannot be written.
            DatasetError: the folder has other settings.
        """
        if not self._images:
            return
        if not (self.folder / SETTINGS).exists():
            write_json(self.folder / SETTINGS, self._settings)
        check_settings(self.folder, read_settings(self.folder), self._settings)
        keys, images = list(self._images), list(self._images.values())
        tensors = {name: torch.stack([image.tokens[name] for image in images]) for name in images[0].tokens}
        tensors["keys"] = torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _KEY_BYTES).copy())
        tensors["sizes"] = torch.tensor([(image.height, image.width) for image in images], dtype=torch.int32)
        name = hashlib.sha256(b"".join([json.dumps(self._settings, sort_keys=True).encode(), *keys])).hexdigest()[:16]
        path = self.folder / f"tokens-{name}.safetensors"
        try:
            with replacing(path, durable=True) as temporary:
                temporary.write_bytes(safetensors.torch.save(tensors))  # `save_file` makes files of one user
        except OSError as error:
            raise SaveError(
                f"cannot write {path}: {error.strerror}. The shards written before are whole: make room and run "
                "`ddl-d2 cache-tokens` again, which goes on behind them"
            ) from error
        self._images, self._bytes = {}, 0


def check_settings(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse tokens that depend on something else.

    Args:
        folder: of the tokens.
        there: its settings.
        wanted: what the tokens should depend on besides the images, plain values.

    Raises:
        DatasetError: says in what the settings differ, and what to do.
    """
    different = [
        f"{name} {_short(there.get(name))} there, {_short(wanted.get(name))} here"
        for name in sorted({*there, *wanted})
        if there.get(name) != wanted.get(name)
    ]
    if different:
        raise DatasetError(
            f"{folder}: holds other tokens than this config and its weights make ({'; '.join(different)}): use "
            "those, or fill another folder with `ddl-d2 cache-tokens` and set MODEL.LOUPE.TOKEN_CACHE to it"
        )


def _short(value: Any) -> str:
    """A value in an error, a digest by its first digits."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read what the tokens in a folder depend on. Raises DatasetError where there are none."""
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder}: holds no tokens (MODEL.LOUPE.TOKEN_CACHE): fill it with `ddl-d2 cache-tokens --config-file ...`"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path}: is damaged ({error}): delete the folder and fill it anew") from error
    if not isinstance(settings, dict):
        raise DatasetError(f"{path}: is damaged (no JSON object): delete the folder and fill it anew")
    return settings


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _shard(path: str) -> dict[str, Tensor]:
    """Map a shard's tensors into memory."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a file is no dict, and is not iterated
        counts = {len(value) for value in tensors.values()}
        if len(counts) != 1 or not {"keys", "sizes"} < set(tensors):
            raise ValueError("keys, sizes and tokens do not go together")
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).split("\n")[0][:200]
        raise DatasetError(
            f"{path}: is a damaged shard of tokens ({reason}): delete it and run `ddl-d2 cache-tokens` again"
        ) from error
    return tensors
