"""Small trainings in forked processes, for trials that look inside them: forking spares each the imports."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from _training import OPTIONS, ROOT
from detectron2.config import CfgNode
from detectron2.utils import comm

from ddl_d2.engine.setup import load_config

SWIN_UNET = "configs/two_cores/swin_unet_efficientnet_lite0.yaml"
MASK2FORMER = "configs/quickstart/mask2former_efficientnet_lite0.yaml"


def small_config(data: Path, output: Path, *changes: object, config: str = SWIN_UNET) -> CfgNode:
    """The config of the smallest training on a set of `make_tiny_set`; `changes` are KEY, VALUE, KEY, VALUE, ..."""
    output.mkdir(parents=True, exist_ok=True)
    common = ["DATASETS.DDL_ROOT", data, "OUTPUT_DIR", output, "SOLVER.CHECKPOINT_PERIOD", 1000, "SEED", 7]
    common += ["INPUT.SELF_BLEND.ENABLED", False]
    return load_config(ROOT / config, [*OPTIONS, *map(str, [*common, *changes])])


def on_ranks(work: Callable[..., Any], world_size: int, *args: Any, seconds: float = 300.0) -> list[Any]:
    """What `work(rank, *args)` gives on each of `world_size` processes; where it raises, or hangs, a text that says so.

    What they print goes nowhere.
    """
    context = torch.multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = [context.Process(target=_rank, args=(r, world_size, folder, work, args)) for r in range(world_size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
            process.kill()
        return [_result(folder / f"{rank}.pth") for rank in range(world_size)]


def _result(path: Path) -> Any:
    return torch.load(path, weights_only=False) if path.exists() else "it died, or had to be killed"


def _rank(rank: int, world_size: int, folder: Path, work: Callable[..., Any], args: tuple) -> None:
    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
        comm.create_local_process_group(world_size)
    try:
        result = work(rank, *args)
    except BaseException:  # noqa: BLE001 (the trial is to see it)
        result = "..." + traceback.format_exc()[-800:]
    torch.save(result, folder / f"{rank}.unfinished")
    os.replace(folder / f"{rank}.unfinished", folder / f"{rank}.pth")
