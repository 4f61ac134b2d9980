"""Writing files so that a crash, at any moment, leaves the old one or the new one, whole."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LEFTOVER = re.compile(r".+\.tmp-\d+")


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Give a path beside `path` to write to; it becomes `path` when the block ends well, and is removed otherwise.

    Args:
        path: of the file, whose folder exists.
        durable: have the file on the disk before the block ends, so that it outlives a power failure, too.

    Raises:
        OSError: from the renaming; and whatever the block raises.
    """
    path = Path(path)
    # The number of a thread is unique on a machine, and a main thread's is that of its process.
    temporary = path.with_name(f"{path.name}.tmp-{threading.get_native_id()}")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[str]:
    """Delete what processes that were killed in `replacing` left in a folder, and return the names."""
    names = sorted(name for name in os.listdir(folder) if _LEFTOVER.fullmatch(name))
    for name in names:
        os.remove(os.path.join(folder, name))
    return names


def write_whole(path: str | os.PathLike[str], content: bytes | str, *, durable: bool = False) -> None:
    """Write a file as `replacing` does; text as UTF-8. Missing folders are made. Raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], content: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON, indented, as `write_whole` does; `default` is `json.dumps`'s. Raises OSError, TypeError."""
    write_whole(path, json.dumps(content, indent=2, default=default) + "\n")


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot do that for a folder; the file is there all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)
