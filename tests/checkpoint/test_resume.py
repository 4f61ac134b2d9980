import logging
import os
import zipfile

import pytest
import torch

from ddl_d2.checkpoint.resume import damage_of, newest_valid, read_lightly
from ddl_d2.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of iterations 1, 3 and 5, a second apart, each tagged in its turn; and the best, of weights only."""
    for second, iteration in enumerate((1, 3, 5)):
        _save(tmp_path / f"model_{iteration}.pth", iteration, second)
    torch.save({"model": {"w": torch.zeros(2)}, "iteration": 4}, tmp_path / "best.pth")
    _tag(tmp_path, "model_5.pth")
    return tmp_path


def _save(path, iteration, second):
    content = {"model": {"w": torch.full((50,), float(iteration))}, "trainer": {}, "iteration": iteration}
    torch.save(content, path)
    os.utime(path, (second, second))


def _tag(folder, text, second=3):
    (folder / "last_checkpoint").write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(folder / "last_checkpoint", (second, second))


def test_the_tag_is_believed(folder, caplog):
    assert newest_valid(folder).name == "model_5.pth"
    # Also where a user has written an earlier one into it.
    _tag(folder, "model_3.pth\n")
    assert newest_valid(folder).name == "model_3.pth"
    assert not caplog.records


def test_a_crash_between_the_file_and_its_tag(folder):
    _tag(folder, "model_3.pth", second=1.5)
    assert newest_valid(folder).name == "model_5.pth"


def test_a_copied_folder_has_other_times(folder):
    # The tag was copied first, and all files after it in a row.
    for second, name in enumerate(("model_5.pth", "model_1.pth", "model_3.pth")):
        os.utime(folder / name, (10 + second, 10 + second))
    assert newest_valid(folder).name == "model_5.pth"


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\x00\xff\x80", "is no file name"),
        (b"model_9.pth", "names model_9.pth, which is not there"),
        (b"../model_1.pth", "outside the folder"),
        (b"/etc/passwd", "outside the folder"),
        (b"..", "outside the folder"),
        (b"x" * 5000, "which is not there"),
    ],
)
def test_a_bad_tag_is_said_and_the_newest_taken(folder, caplog, tag, problem):
    _tag(folder, tag)
    assert newest_valid(folder).name == "model_5.pth"
    assert problem in caplog.text


def test_no_tag_and_a_folder_for_a_tag(folder, caplog):
    (folder / "last_checkpoint").unlink()
    assert newest_valid(folder).name == "model_5.pth"
    assert "is missing" in caplog.text
    (folder / "last_checkpoint").mkdir()
    assert newest_valid(folder).name == "model_5.pth"
    assert "cannot be read" in caplog.text


def test_a_tag_that_names_weights_only(folder):
    _tag(folder, "best.pth")
    assert newest_valid(folder).name == "model_5.pth"


@pytest.mark.parametrize("length", [0, 1, 100, 1000, -1])
def test_a_file_cut_short_is_passed_over(folder, caplog, length):
    path = folder / "model_5.pth"
    path.write_bytes(path.read_bytes()[:length])
    assert newest_valid(folder).name == "model_3.pth"
    assert "Not resumed from model_5.pth" in caplog.text


def test_a_single_bit_is_noticed(folder, caplog):
    path = folder / "model_5.pth"
    content = bytearray(path.read_bytes())
    # Of the number 5.0 in the tensor's record: it loads, but is another number.
    at = content.index(torch.full((50,), 5.0).numpy().tobytes())
    content[at + 1] ^= 1
    path.write_bytes(content)
    assert read_lightly(path)["model"]["w"][0] != 5
    assert newest_valid(folder).name == "model_3.pth"
    assert "Not resumed from model_5.pth: damaged (checksum of" in caplog.text


def test_nothing_valid_is_an_error_that_lists_all(folder):
    for iteration in (1, 3, 5):
        (folder / f"model_{iteration}.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint to resume from \(model_1\.pth: .*model_3.*model_5"
    ) as caught:
        newest_valid(folder)
    assert "best" not in str(caught.value)


def test_nothing_at_all(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert newest_valid(tmp_path) is None
    torch.save({"model": {}}, tmp_path / "pretrained.pth")
    (tmp_path / "model_1.pth.tmp-7").write_bytes(b"half")
    assert newest_valid(tmp_path) is None
    assert not caplog.records


class _Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_not_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.save({"model": {}, "trainer": _Code(), "iteration": 7}, folder / "model_5.pth")
    assert newest_valid(folder).name == "model_3.pth"
    assert not (folder / "executed").exists()


def test_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "good", "w") as archive:
        archive.writestr("a", b"content")
    assert damage_of(tmp_path / "good") is None
    assert damage_of(tmp_path / "gone").startswith("damaged")
