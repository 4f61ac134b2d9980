"""Tokens of a frozen backbone: what they depend on, filling a cache of them, and what is refused before reading one.

The cache itself is `data/token_cache.py`; Loupe is the system that reads tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ddl_d2.checkpoint.shipped import digest
from ddl_d2.data.build import build_test_loader
from ddl_d2.data.token_cache import SETTINGS, CachedImage, TokenCache, TokenWriter, check_settings, read_settings
from ddl_d2.data.token_mapper import UncachedImages, fitting_settings
from ddl_d2.errors import ConfigError
from ddl_d2.modeling.meta_arch.loupe import Loupe

_STORED_AS = {"float32": torch.float32, "float16": torch.float16}
_FORMAT = 1


def token_settings(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """Say what the tokens of a model depend on besides the images, as plain values.

    Raises:
        ConfigError: the system has no backbone of tokens.
    """
    backbone = _system(cfg, model).backbone
    # A counter that no computation reads, and that files of weights may lack.
    state = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    return fitting_settings(cfg) | {
        "format": _FORMAT,
        "encoder": [cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME, *getattr(backbone, "in_features", ())],
        "weights": digest(state),
        "input_size": cfg.MODEL.LOUPE.INPUT_SIZE,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "precision": cfg.MODEL.LOUPE.TOKEN_PRECISION,
    }


def refuse_changing_tokens(cfg: CfgNode, model: nn.Module) -> None:
    """Refuse to cache the tokens of a backbone that learns, or that computes otherwise in training.

    Args:
        cfg: its config.
        model: frozen as the training freezes it, in training mode.

    Raises:
        ConfigError: names a parameter or module, and what to do.
    """
    backbone = _system(cfg, model).backbone
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    if trained:
        raise ConfigError(
            f"MODEL.LOUPE.TOKEN_CACHE: the backbone is trained ({len(trained)} parameters, such as {trained[0]}), and "
            'tokens of a step ago are no longer its own: freeze it (SOLVER.FREEZE ["backbone"]), or leave the cache off'
        )
    changing = [name for name, module in backbone.named_modules() if module.training and _changes(module)]
    if changing:
        raise ConfigError(
            f"MODEL.LOUPE.TOKEN_CACHE: the backbone computes otherwise in training ({changing[0]}): set "
            'MODEL.TIMM.DROP_PATH_RATE 0.0 and SOLVER.FREEZE ["backbone"], or leave the cache off'
        )


def check_tokens(cfg: CfgNode, model: nn.Module) -> None:
    """Refuse tokens that this model, with the weights it has now, would not make itself.

    Raises:
        ConfigError: as `refuse_changing_tokens` and `token_settings`.
        DatasetError: says in what MODEL.LOUPE.TOKEN_CACHE differs, and what to do.
    """
    folder = Path(cfg.MODEL.LOUPE.TOKEN_CACHE)
    check_settings(folder, read_settings(folder), token_settings(cfg, model))


@dataclass
class Filling:
    """What came of filling a cache from a dataset.

    Attributes:
        added: images whose tokens were computed.
        there: images whose tokens were there.
        unreadable: images that cannot be read.
    """

    added: int = 0
    there: int = 0
    unreadable: int = 0

    def __add__(self, other: Filling) -> Filling:
        return Filling(self.added + other.added, self.there + other.there, self.unreadable + other.unreadable)

    def __str__(self) -> str:
        return f"{self.added} added, {self.there} there already, {self.unreadable} unreadable"


def tokens_there(cfg: CfgNode, settings: dict[str, Any]) -> TokenCache | None:
    """Open MODEL.LOUPE.TOKEN_CACHE for adding to it; None: nothing is there.

    Raises:
        DatasetError: it holds tokens of something else, or is damaged.
    """
    folder = Path(cfg.MODEL.LOUPE.TOKEN_CACHE)
    if not (folder / SETTINGS).exists():
        return None
    cache = TokenCache(folder)
    check_settings(folder, cache.settings, settings)
    return cache


def bytes_per_image(cfg: CfgNode, model: nn.Module) -> int:
    """Compute how much disk the tokens of an image take, from those of a black one."""
    side = cfg.MODEL.LOUPE.INPUT_SIZE
    row = {"image": torch.zeros(3, side, side, dtype=torch.uint8), "height": side, "width": side}
    (image,) = _encoded(_system(cfg, model), [row], _STORED_AS[cfg.MODEL.LOUPE.TOKEN_PRECISION])
    return sum(value.nbytes for value in image.tokens.values())


def fill(cfg: CfgNode, dataset_name: str, model: nn.Module, cache: TokenCache | None, writer: TokenWriter) -> Filling:
    """Compute the tokens of this rank's share of a dataset that are not there.

    Args:
        cfg: the config; TEST.BATCH_SIZE images go through the backbone at once.
        dataset_name: of a registered dataset.
        model: in eval mode.
        cache: what is there, if anything.
        writer: takes what is added; it is flushed.

    Raises:
        SaveError: the disk is full; the shards written before are whole.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.MAX_IMAGES = 0
    cfg.TEST.AUG.ENABLED = False
    system = _system(cfg, model)
    loader = build_test_loader(cfg, dataset_name, mapper=UncachedImages(cfg, True, cache=cache))
    dtype, done, seen = _STORED_AS[cfg.MODEL.LOUPE.TOKEN_PRECISION], Filling(), set()
    with tqdm(total=loader.num_rows, unit="image", desc=dataset_name, disable=None) as progress:
        for rows in loader:
            new = [row for row in rows if "image" in row and row["key"] not in seen]
            seen |= {row["key"] for row in new}
            for row, image in zip(new, _encoded(system, new, dtype) if new else [], strict=True):
                writer.add(row["key"], image)
            unreadable = sum("unreadable" in row for row in rows)
            done.added += len(new)
            done.unreadable += unreadable
            done.there += len(rows) - len(new) - unreadable
            progress.update(len(rows))
    writer.flush()
    return done


@torch.no_grad()
def _encoded(system: Loupe, rows: list[dict[str, Any]], dtype: torch.dtype) -> list[CachedImage]:
    """Encode the images of rows, in fp32."""
    arrays = {name: value.to("cpu", dtype) for name, value in system.tokens(rows).tensors().items()}
    return [
        CachedImage(row["height"], row["width"], {name: value[number] for name, value in arrays.items()})
        for number, row in enumerate(rows)
    ]


def _system(cfg: CfgNode, model: nn.Module) -> Loupe:
    system = model.module if isinstance(model, DistributedDataParallel) else model
    if not isinstance(system, Loupe):
        raise ConfigError(
            f"MODEL.LOUPE.TOKEN_CACHE is for Loupe; {cfg.MODEL.META_ARCHITECTURE} reads images: leave it empty"
        )
    return system


def _changes(module: nn.Module) -> bool:
    """Tell whether a module in training mode sets values to 0 at random, or uses the statistics of a batch."""
    if isinstance(module, _BatchNorm):
        return True
    share: Any = getattr(module, "drop_prob", None)
    if isinstance(module, nn.modules.dropout._DropoutNd):
        share = module.p
    return isinstance(share, float) and share > 0
