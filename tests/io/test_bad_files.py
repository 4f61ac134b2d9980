"""Which files training skips: what is counted, what stands in for them, and when it is too many."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from ddl_d2.data.build import build_train_loader
from ddl_d2.data.loader import MAX_DRAWS, TrainLoader
from ddl_d2.data.samplers import TrainingSampler
from ddl_d2.errors import ConfigError, ImageReadError
from ddl_d2.io.bad_files import BadFile, BadFiles, TooManyBadFilesError, listed
from tests.conftest import ROOT


def bad(row, reason="is empty (0 bytes)"):
    return BadFile(row, f"fake/{row}.png", f"set/fake/{row}.png", reason)


@pytest.mark.parametrize(
    ("rows", "share", "limit"),
    # 0.29 · 100 is 28.999999999999996 in floating point; 1 % of 99 rows is less than one.
    [(100, 0.01, 1), (99, 0.01, 0), (250, 0.01, 2), (100, 0.29, 29), (7, 0.0, 0), (7, 1.0, 7)],
)
def test_the_limit_is_a_whole_number_of_rows(rows, share, limit):
    files = BadFiles(num_rows=rows, max_share=share)
    assert files.limit == limit
    files.add(map(bad, range(limit)))
    files.check()
    files.add([bad(limit)])
    says = rf"{limit + 1} of the {rows} rows .* allows {limit}: set/fake/0\.png"
    with pytest.raises(TooManyBadFilesError, match=says):
        files.check()


def test_a_row_counts_and_is_logged_once(caplog):
    files = BadFiles(num_rows=10, max_share=0.5)
    files.add([bad(3), bad(1), bad(3)])
    assert (len(files), files.has_news, files.agreed) == (2, True, [])
    files.agree()
    assert not files.has_news
    assert files.agreed == [bad(1), bad(3)]  # in the order of rows, whichever rank came first
    files.add([bad(1, "seen again")])
    assert (len(files), files.has_news) == (2, False)
    assert [record.getMessage() for record in caplog.records] == [
        "fake/3.png is skipped: set/fake/3.png: is empty (0 bytes)",
        "fake/1.png is skipped: set/fake/1.png: is empty (0 bytes)",
    ]


def test_the_state_is_plain_and_comes_back():
    files = BadFiles(num_rows=10, max_share=0.5)
    files.add([bad(3)])
    files.agree()
    files.add([bad(1)])
    state = files.state_dict()
    assert state == [[3, "fake/3.png", "set/fake/3.png", "is empty (0 bytes)"], [1, *bad(1)[1:]]]
    again = BadFiles(num_rows=10, max_share=0.5)
    again.load_state_dict(state)
    assert again.agreed == [bad(3), bad(1)]


def test_a_share_is_a_share():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share"):
            BadFiles(num_rows=10, max_share=share)


def test_the_share_of_a_config(tiny_cfg, tiny_set):
    options = ("DATASETS.DDL_ROOT", str(tiny_set), "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.MAX_BAD_SHARE")
    assert build_train_loader(tiny_cfg(*options, "0.5")).bad_files.limit == 4
    with pytest.raises(ConfigError, match=r"DATALOADER\.MAX_BAD_SHARE is 1\.5"):
        build_train_loader(tiny_cfg(*options, "1.5"))


def test_a_long_list_is_cut():
    assert listed([bad(n) for n in range(3)], limit=2).endswith("set/fake/1.png: is empty (0 bytes) and 1 more")


def test_the_error_survives_the_way_from_another_process():
    again = pickle.loads(pickle.dumps(TooManyBadFilesError("too many", [bad(1)])))
    assert (str(again), again.files) == ("too many", [bad(1)])


def rows_of(count):
    return [{"image_id": f"{n}.png", "file_name": f"{n}.png", "number": n} for n in range(count)]


def make_loader(broken, labels=None, share=0.5, rows=8):
    def mapper(row):
        if row["number"] in broken:
            raise ImageReadError(row["file_name"], "is broken")
        return {**row, "drawn": np.random.randint(10**6)}

    sampler = TrainingSampler(rows, seed=1)
    return TrainLoader(
        rows_of(rows), mapper=mapper, sampler=sampler, total_batch_size=2, labels=labels, max_bad_share=share
    )


def take(loader, count):
    batches = iter(loader)
    return [row for _ in range(count) for row in next(batches)]


def test_another_row_of_the_class_stands_in():
    labels = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    rows = take(make_loader({0}, labels), 40)  # 80 samples: ten passes over eight rows
    counts = np.bincount([row["number"] for row in rows], minlength=8)
    # Row 1 is the only other one of its class.
    assert counts.tolist() == [0, 20, 10, 10, 10, 10, 10, 10]
    assert all(set(row) == {"image_id", "file_name", "number", "drawn"} for row in rows)
    sound = take(make_loader(set(), labels), 40)
    changed = [(a, b) for a, b in zip(rows, sound, strict=True) if a != b]
    assert len(changed) == 10  # the others are as they would be without a bad file


def test_a_class_of_which_nothing_can_be_read_stops(monkeypatch):
    labels = np.array([0, 1, 1, 1, 1, 1, 1, 1])
    with pytest.raises(TooManyBadFilesError, match=rf"none of {MAX_DRAWS} rows drawn .*0\.png: is broken"):
        take(make_loader({0}, labels), 4)


def test_without_a_share_the_first_one_stops():
    with pytest.raises(TooManyBadFilesError, match=r"1 of the 8 rows .* allows 0: 5\.png: is broken"):
        take(make_loader({5}, share=0.0), 4)


def test_the_loader_state_holds_them():
    loader = make_loader({5, 2})
    take(loader, 4)
    state = loader.state_dict()
    assert sorted(row for row, *_ in state["bad_files"]) == [2, 5]
    again = make_loader({5, 2})
    again.load_state_dict(state)
    assert again.bad_files.agreed == loader.bad_files.agreed
    del state["bad_files"]  # a checkpoint of an earlier version
    again.load_state_dict(state)
    assert again.bad_files.agreed == []


def test_bad_data_in_short():
    command = [sys.executable, "trials/bad_data.py", "--short"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 passed, 0 failed" in done.stdout
