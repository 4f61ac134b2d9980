import os
import resource
import signal

import pytest
import torch
from safetensors.torch import load_file

from ddl_d2.checkpoint.saving import read_metadata, save_tensors, write_safely
from ddl_d2.errors import CheckpointError, SaveError
from ddl_d2.io.atomic import remove_leftovers


def test_a_file_is_replaced_and_nothing_is_left(tmp_path):
    target = tmp_path / "x"
    for content in (b"one", b"two"):
        write_safely(str(target), lambda f, content=content: f.write(content))
        assert target.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


class _Full:
    """A file on a disk with room for `room` bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def flush(self):
        self.file.flush()


@pytest.mark.parametrize("room", [0, 1, 700, 40_000])
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path, room):
    target = tmp_path / "x.pth"
    target.write_bytes(b"old")
    # 10,000 numbers of 4 bytes: 40,000 and the headers do not fit in 40,000.
    with pytest.raises(SaveError, match=r"x\.pth: No space left on device\. What was saved before is untouched"):
        write_safely(str(target), lambda f: torch.save(torch.zeros(10_000), _Full(f, room)))
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_a_limit_of_the_system_is_one(tmp_path):
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            write_safely(str(tmp_path / "x"), lambda f: f.write(bytes(200)))
        except SaveError as error:
            os._exit(7 if "File too large" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(SaveError, match="No such file or directory"):
        write_safely(str(tmp_path / "gone" / "x"), lambda f: f.write(b"x"))


def test_the_order_is_content_then_name_then_folder(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_safely(str(tmp_path / "x"), lambda f: f.write(b"x"))
    assert calls == [str(tmp_path / f"x.tmp-{os.getpid()}"), "replace", str(tmp_path)]


def test_a_file_system_without_syncable_folders(tmp_path, monkeypatch):
    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write_safely(str(tmp_path / "x"), lambda f: f.write(b"x"))
    assert (tmp_path / "x").read_bytes() == b"x"


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    pid = os.fork()
    if pid == 0:
        write_safely(str(target), lambda f: (f.write(b"new"), f.flush(), os.kill(os.getpid(), signal.SIGKILL)))
    os.waitpid(pid, 0)
    assert target.read_bytes() == b"old"
    assert remove_leftovers(str(tmp_path)) == [f"x.tmp-{pid}"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_tensors_that_share_memory_are_each_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    path = str(tmp_path / "x.safetensors")
    save_tensors(path, {"a": weight, "tied": weight, "view": weight.t()}, iteration=3)
    saved = load_file(path)
    assert torch.equal(saved["a"], weight)
    assert torch.equal(saved["tied"], weight)
    assert torch.equal(saved["view"], weight.t())
    assert read_metadata(path) == {"format": "pt", "iteration": "3"}


@pytest.mark.parametrize(("content", "problem"), [(None, "no such weights file"), (b"nonsense", "not a readable")])
def test_metadata_of_what_is_no_such_file(tmp_path, content, problem):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.safetensors: {problem}"):
        read_metadata(path)
