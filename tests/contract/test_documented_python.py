"""The Python blocks of every page run, in the order of their page, as they are printed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model

import ddl_d2
from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.io.image import write_png
from tests.clip_files import tone, write_talk
from tests.conftest import ROOT, TINY
from tests.contract.documents import PAGES, blocks
from tests.modeling.meta_arch.batfd_cases import TINY_CLIP, clip_model
from tests.onnx_files import write_bright_is_fake

PYTHON = {page.relative_to(ROOT).as_posix(): [b for b in blocks(page) if b.language == "python"] for page in PAGES}
PYTHON = {page: found for page, found in PYTHON.items() if found}
# The pages' own system is named nowhere else.
OWN = {"my_images": DatasetCatalog, "Pyramid": BACKBONE_REGISTRY._obj_map, "MeanColor": META_ARCH_REGISTRY._obj_map}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What stands for the quickstart's model: a much reduced one, untrained, whose file carries its config."""
    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
    cfg = ddl_d2.load_config("quickstart/mask2former_efficientnet_lite0", [*TINY, *small])
    path = tmp_path_factory.mktemp("weights") / "model_final.safetensors"
    torch.manual_seed(0)
    save_tensors(str(path), build_model(cfg).state_dict(), config=cfg.dump())
    return path


@pytest.fixture(scope="module")
def trained_on_clips(tmp_path_factory):
    """The same of the model of clips."""
    cfg = ddl_d2.load_config("lav_df/batfd_plus", TINY_CLIP)
    path = tmp_path_factory.mktemp("weights") / "model_final.safetensors"
    save_tensors(str(path), clip_model().state_dict(), config=cfg.dump())
    return path


@pytest.fixture
def prepared(tmp_path, trained, trained_on_clips, monkeypatch, rng, astronaut):
    """A folder with all that the pages speak of, as the current one."""
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "photo.jpg", astronaut)
    images = ["another.jpg", *(f"photos/{name}.png" for name in "ab")]
    images += ["output/quickstart/data/valid/fake/000010.jpg"]
    images += [f"mine/{name}.png" for name in ("real_0", "real_1", "fake_0", "fake_1")]
    for name in images:
        write_png(tmp_path / name, rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    mask = np.zeros((40, 50), dtype=bool)
    mask[5:20, 5:30] = True
    for name in ("fake_0", "fake_1"):
        write_png(tmp_path / "mine" / "masks" / f"{name}.png", mask)
    shutil.copy(trained, tmp_path / "output" / "quickstart")
    (tmp_path / "output" / "two_cores_batfd_plus").mkdir()
    shutil.copy(trained_on_clips, tmp_path / "output" / "two_cores_batfd_plus")
    write_bright_is_fake(tmp_path / "eyes.onnx")
    write_talk(tmp_path / "clip.mp4", sound=tone(0.4, 16000)[None], sound_rate=16000)
    yield tmp_path
    for name, registry in OWN.items():
        registry.pop(name, None)
    MetadataCatalog.pop("my_images", None)


def run_page(page: str) -> dict[str, Any]:
    """Run a page's blocks in one namespace, which is returned."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in PYTHON[page]:
        exec(compile("\n" * block.line + block.text, ROOT / page, "exec"), names)
    return names


def test_the_blocks_were_found():
    assert len(PYTHON["README.md"]) == 1
    assert len(PYTHON["docs/tutorials/own_system.md"]) == 4


@pytest.mark.parametrize("page", PYTHON)
def test_a_page_runs(page, prepared, capsys):
    names = run_page(page)
    if page in AFTERWARDS:
        AFTERWARDS[page](names, capsys.readouterr().out.splitlines())


def an_overlay_is_saved(names: dict[str, Any], printed: list[str]) -> None:
    assert Path("overlay.png").stat().st_size > 1000
    assert printed[0].startswith("real 0.")


def a_broken_file_does_not_end_a_folder(names: dict[str, Any], printed: list[str]) -> None:
    assert sum(line.startswith("photos/broken.jpg: ") for line in printed) == 1
    assert sum(line.endswith((" real", " fake")) for line in printed) == 2


def the_own_parts_are_used(names: dict[str, Any], printed: list[str]) -> None:
    results = names["results"]["ddl"]
    assert (results["num_images"], results["num_real"], results["num_localized"]) == (4, 2, 2)
    assert type(names["trainer"].model).__name__ == "MeanColor"
    assert Path("output/mean_color/model_final.safetensors").is_file()


def a_clip_is_judged(names: dict[str, Any], printed: list[str]) -> None:
    assert names["result"].duration == pytest.approx(0.4)
    assert printed[0].split()[0] in ("real", "fake")


# What a page's blocks leave, besides not failing.
AFTERWARDS = {
    "README.md": an_overlay_is_saved,
    "docs/clips.md": a_clip_is_judged,
    "docs/tutorials/own_images.md": a_broken_file_does_not_end_a_folder,
    "docs/tutorials/own_system.md": the_own_parts_are_used,
}


def test_the_own_backbone_serves_the_query_decoder(prepared, tiny_cfg, make_row):
    run_page("docs/tutorials/own_system.md")
    model = build_model(tiny_cfg("MODEL.BACKBONE.NAME", "Pyramid"))
    losses = model.train()([make_row(0), make_row(1, fake=False)])
    assert all(torch.isfinite(loss) for loss in losses.values())
