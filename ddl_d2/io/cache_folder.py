"""The one folder in which everything is kept that can be made again: found faces, and indexes of datasets.

It is $DDL_D2_CACHE, or else `ddl_d2` in $XDG_CACHE_HOME or ~/.cache. Delete it to start afresh.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
import tempfile
from pathlib import Path

from ddl_d2.errors import SaveError

logger = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """Return the folder for one kind of content, "faces" or "indexes"; whoever writes to it makes it.

    Without a home folder that can be written, as for a user id that the machine does not know, the folder is one of
    this user's below the system's folder for temporary files; a warning says so once.

    Raises:
        SaveError: the temporary folder cannot be made, or belongs to somebody else.
    """
    chosen = os.environ.get("DDL_D2_CACHE")
    if chosen:
        return Path(chosen) / kind
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg:
        return Path(xdg) / "ddl_d2" / kind
    try:
        folder = Path.home() / ".cache" / "ddl_d2"
    except RuntimeError:  # no $HOME, and no entry in the list of users
        return _temporary_folder() / kind
    return (folder if _can_be_written(folder) else _temporary_folder()) / kind


def _can_be_written(folder: Path) -> bool:
    """Tell whether files can be written to a folder, or the folder can be made."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


@functools.cache
def _temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"ddl_d2-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SaveError(f"{folder}: {error.strerror}; set DDL_D2_CACHE to a folder that can be written") from error
    # Its name can be guessed: another user may have put something there.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise SaveError(f"{folder} is not a folder of this user; set DDL_D2_CACHE to one that is")
    logger.warning("no home folder that can be written: faces and indexes are kept in %s (see DDL_D2_CACHE)", folder)
    return folder
