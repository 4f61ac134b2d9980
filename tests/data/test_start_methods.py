"""Data workers that are forked, spawned (macOS, Windows) or come from a fork server (Linux from Python 3.14 on)."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest

from ddl_d2.config.load import list_configs, read_config
from ddl_d2.data.build import build_test_loader, build_train_loader, build_train_mapper
from ddl_d2.data.build_faces import build_face_crop
from ddl_d2.data.datasets import load_config
from ddl_d2.data.mapper import ForgeryDatasetMapper
from tests.conftest import ROOT, TINY

CONFIG = ROOT / "configs/quickstart/mask2former_efficientnet_lite0.yaml"
SMALL = [
    *TINY,
    "SOLVER.IMS_PER_BATCH",
    "4",
    "INPUT.MIN_SIZE_TRAIN",
    "(64,)",
    "INPUT.CROP.SIZE",
    "[64, 64]",
    "SEED",
    "1",
]
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(params=METHODS)
def method(request):
    """Workers start like this; the process's own way is put back."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def _cfg(data, workers):
    return load_config(CONFIG, [*SMALL, "DATASETS.DDL_ROOT", str(data), "DATALOADER.NUM_WORKERS", str(workers)])


def _seen(batches):
    return [(row["image_id"], int(row["image"].sum(dtype=int))) for batch in batches for row in batch]


def test_the_samples_are_those_of_no_workers(method, tiny_set):
    expected = _seen(itertools.islice(build_train_loader(_cfg(tiny_set, 0)), 4))
    assert _seen(itertools.islice(build_train_loader(_cfg(tiny_set, 2)), 4)) == expected


def test_an_evaluation_sees_every_image(method, tiny_set):
    expected = _seen(build_test_loader(_cfg(tiny_set, 0), "ddl_i_valid"))
    assert len(expected) == 6
    assert _seen(build_test_loader(_cfg(tiny_set, 2), "ddl_i_valid")) == expected


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="no sigwaitinfo")
def test_a_stop_of_the_whole_job_does_not_end_workers(method, tiny_set):
    batches = iter(build_train_loader(_cfg(tiny_set, 1)))
    next(batches)
    (worker,) = [child.pid for child in multiprocessing.active_children() if child.pid]
    stranger = multiprocessing.get_context("fork").Process(target=_stop, args=(worker,))
    stranger.start()
    stranger.join()
    assert len([next(batches) for _ in range(6)]) == 6


def _stop(process):
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process, number)


@pytest.mark.parametrize("name", list_configs())
def test_every_mapper_can_be_sent_to_a_worker(name):
    cfg = read_config(ROOT / "configs" / f"{name}.yaml", ["MODEL.DEVICE", "cpu"])
    if not (cfg.INPUT.SELF_BLEND.ENABLED or cfg.INPUT.FACE_SWAP.ENABLED):  # these need a face finder: see below
        pickle.loads(pickle.dumps(build_train_mapper(cfg)))
        pickle.loads(pickle.dumps(ForgeryDatasetMapper(cfg, False, crop=build_face_crop(cfg, False))))


def test_finders_can_be_sent_to_a_worker(finder, yunet, astronaut):
    for one in (finder, yunet):
        sent = pickle.dumps(one)
        assert len(sent) < 10**7
        (face,), (same,) = one(astronaut), pickle.loads(sent)(astronaut)
        np.testing.assert_array_equal(face.landmarks, same.landmarks)
        assert one.settings == pickle.loads(sent).settings


def test_a_mapper_that_forges_can_be_sent_to_a_worker(finder):
    cfg = read_config(ROOT / "configs/two_cores/swin_unet_self_blending.yaml", ["MODEL.DEVICE", "cpu"])
    pickle.loads(pickle.dumps(build_train_mapper(cfg)))
