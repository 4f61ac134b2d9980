import errno
import json
import os
import stat
import threading

import pytest

from ddl_d2.io import atomic as files
from ddl_d2.io.atomic import remove_leftovers, replacing, write_json, write_whole


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), replacing(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_threads_that_write_the_same_file_do_not_meet(tmp_path):
    target, both = tmp_path / "a.txt", threading.Barrier(2)

    def write(text):
        with replacing(target) as temporary:
            both.wait(10)
            temporary.write_text(text)
            both.wait(10)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("aaa", "bbb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in ("aaa", "bbb")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_durable_syncs_the_file_then_its_folder(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
    write_whole(tmp_path / "a", b"x")
    assert synced == []
    write_whole(tmp_path / "a", b"x", durable=True)
    assert synced == [False, True]


def test_a_file_system_that_cannot_sync_folders_is_no_failure_but_one_that_cannot_sync_files_is(tmp_path, monkeypatch):
    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode) or fails:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(files.os, "fsync", fsync)
    fails = False
    write_whole(tmp_path / "a", b"x", durable=True)
    fails = True
    with pytest.raises(OSError, match="Invalid argument"):
        write_whole(tmp_path / "a", b"y", durable=True)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_leftovers_are_only_what_this_writes(tmp_path):
    for name in ("a.pth", "notes.tmp", "a.pth.tmp-x", ".tmp-1", "a.tmp-12.txt", "a.pth.tmp-12"):
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == ["a.pth.tmp-12"]


def test_text_is_utf8_and_missing_folders_are_made(tmp_path):
    write_whole(tmp_path / "a" / "b" / "c.txt", "é\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"\xc3\xa9\n"


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": [1, 2.5, None, "é"]})
    with pytest.raises(TypeError):
        write_json(target, {"a": tmp_path})
    assert json.loads(target.read_text()) == {"a": [1, 2.5, None, "é"]}
    write_json(target, {"a": tmp_path}, default=str)
    assert json.loads(target.read_text()) == {"a": str(tmp_path)}
