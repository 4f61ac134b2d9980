"""What a user has who installed the wheel, without a checkout: command, configs, training by a config's name."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CONFIGS, ROOT, TINY


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that the wheel is unpacked into, as pip does it. The compiled op is left out: it takes a minute."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # From a copy of what git knows: a build leaves files behind, and a checkout may hold others.
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if name.startswith(("ddl_d2/", "configs/", "weights/")) or name in (
            "setup.py",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source]
    env = os.environ | {"DDL_D2_NO_EXTENSION": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def ddl_d2(installed, tmp_path):
    """Run `ddl-d2` in an empty folder; returns what it printed."""

    def run(*words: object) -> str:
        command = [sys.executable, "-m", "ddl_d2.cli.main", *map(str, words)]
        env = os.environ | {"PYTHONPATH": str(installed), "DDL_D2_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_every_config_is_in_the_wheel(ddl_d2, installed):
    names = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in CONFIGS}
    assert set(ddl_d2("configs").split()) == names
    assert "ddl-d2 = ddl_d2.cli.main:main" in next(installed.glob("*.dist-info/entry_points.txt")).read_text()


def test_the_page_is_in_the_wheel(installed):
    files = {path.relative_to(installed / "ddl_d2").as_posix() for path in (installed / "ddl_d2").rglob("*.*s*")}
    assert {"report/style.css", "serve/page/page.css", "serve/page/page.js"} <= files
    assert (installed / "ddl_d2/serve/page/index.html").is_file()


def test_it_trains_and_predicts_in_an_empty_folder(ddl_d2, tiny_set, tmp_path):
    small = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "TEST.EVAL_PERIOD", "0", "INPUT.MIN_SIZE_TEST", "64"]
    ddl_d2(
        "train", "--config-file", "quickstart/mask2former_efficientnet_lite0",
        *TINY, *small, "DATASETS.DDL_ROOT", tiny_set, "OUTPUT_DIR", tmp_path / "out",
    )  # fmt: skip
    weights = tmp_path / "out/model_final.safetensors"
    out = ddl_d2("predict", tiny_set / "valid/fake/0.png", "--weights", weights, "--device", "cpu")
    assert out.splitlines()[0].endswith("0.png")
