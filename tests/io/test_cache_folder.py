import os
import tempfile
from pathlib import Path

import pytest

from ddl_d2.errors import SaveError
from ddl_d2.io import cache_folder as module
from ddl_d2.io.cache_folder import cache_folder


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path, monkeypatch):
    monkeypatch.delenv("DDL_D2_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module._temporary_folder.cache_clear()
    yield
    module._temporary_folder.cache_clear()


def _home(monkeypatch, folder: Path | None) -> None:
    def home():
        if folder is None:
            raise RuntimeError("Could not determine home directory.")
        return folder

    monkeypatch.setattr(Path, "home", home)


def test_the_first_that_is_said(tmp_path, monkeypatch):
    _home(monkeypatch, tmp_path / "home")
    assert cache_folder("faces") == tmp_path / "home/.cache/ddl_d2/faces"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder("faces") == Path("/xdg/ddl_d2/faces")
    monkeypatch.setenv("DDL_D2_CACHE", "/mine")
    assert cache_folder("indexes") == Path("/mine/indexes")
    assert not (tmp_path / "home").exists()


def test_without_a_home(tmp_path, monkeypatch, caplog):
    _home(monkeypatch, None)
    folder = tmp_path / f"ddl_d2-{os.getuid()}"
    assert cache_folder("faces") == folder / "faces"
    assert cache_folder("indexes") == folder / "indexes"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert caplog.text.count(f"kept in {folder}") == 1


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    _home(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache_folder("faces") == tmp_path / f"ddl_d2-{os.getuid()}" / "faces"


def test_a_file_for_a_home(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    _home(monkeypatch, tmp_path / "file")
    assert cache_folder("faces") == tmp_path / f"ddl_d2-{os.getuid()}" / "faces"


@pytest.mark.parametrize("what", ["file", "link", "stranger"])
def test_a_temporary_folder_of_somebody_else(tmp_path, monkeypatch, what):
    _home(monkeypatch, None)
    folder = tmp_path / f"ddl_d2-{os.getuid()}"
    if what == "file":
        folder.write_text("")
    elif what == "link":
        folder.symlink_to(tmp_path)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        (tmp_path / "ddl_d2-4711").mkdir()
    with pytest.raises(SaveError, match="DDL_D2_CACHE"):
        cache_folder("faces")
