"""From a config file and `KEY VALUE` overrides to a checked, frozen configuration."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg

from ddl_d2.config import ConfigError, add_ddl_config
from ddl_d2.data.datasets import register_datasets
from ddl_d2.engine.precision import PRECISIONS
from ddl_d2.modeling.tiles import check_tiles

logger = logging.getLogger(__name__)


def load_config(config_file: str | Path, opts: list[str] | tuple[str, ...] = ()) -> CfgNode:
    """Read `config_file`, apply `opts` (KEY VALUE KEY VALUE ...), register the data sets it names; -> frozen config.

    Raises ConfigError naming the file and the key: no such file, not YAML, unknown key, value of the wrong type, a
    `_BASE_` from the network.
    """
    path = Path(config_file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    if len(opts) % 2:
        raise ConfigError(f"options come in pairs KEY VALUE, but {len(opts)} words were given: {' '.join(opts)}")
    cfg = get_cfg()
    add_ddl_config(cfg)
    try:
        # allow_unsafe=False: a config is data; YAML tags that build Python objects are refused.
        cfg.merge_from_other_cfg(CfgNode(_read_yaml(path)))
    except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error
    try:
        cfg.merge_from_list(list(opts))
    except (KeyError, ValueError, TypeError, AssertionError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"option on the command line: {_one_line(error)}") from error
    check_config(cfg)
    register_datasets(cfg)
    cfg.freeze()
    return cfg


def config_from_text(text: str) -> CfgNode:
    """What a config's `dump` wrote -> the config, thawed; its data sets are not registered.

    Raises ConfigError as `load_config`.
    """
    cfg = get_cfg()
    add_ddl_config(cfg)
    try:
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(text)))
    except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(_one_line(error)) from error
    return cfg


def _read_yaml(path: Path) -> dict:
    for ancestor in _base_chain(path):
        if "://" in ancestor:
            raise ConfigError(f"{path}: _BASE_ '{ancestor}' is on the network; only local files are read")
    return CfgNode.load_yaml_with_base(os.fspath(path), allow_unsafe=False)


def _base_chain(path: Path) -> list[str]:
    """The `_BASE_` entries from `path` upwards, without merging them."""
    chain: list[str] = []
    seen: set[Path] = set()
    while path.is_file() and path.resolve() not in seen:
        seen.add(path.resolve())
        bases = [line.split(":", 1)[1].strip().strip("'\"") for line in _lines(path) if line.startswith("_BASE_:")]
        if not bases:
            break
        chain.append(bases[0])
        path = path.parent / bases[0]
    return chain


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error.reason})") from error


def _one_line(error: Exception) -> str:
    # KeyError quotes its message; YAML's span lines.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())[:400]


def check_config(cfg: CfgNode) -> None:
    """Refuse combinations that would only fail later, naming the key."""
    choices = {
        "INPUT.INSTANCES": ("union", "connected_components"),
        "INPUT.CROP.EMPTY_POLICY": ("keep", "relabel"),
        "DATASETS.FAKE_WITHOUT_MASK": ("skip", "full", "score", "error"),
        "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "ClassBalancedSampler"),
        "SOLVER.OPTIMIZER": ("ADAMW", "ADAM", "SGD"),
        "SOLVER.AMP.PRECISION": ("bfloat16", "float16"),
        "SOLVER.LR_SCHEDULER_NAME": ("WarmupPolyLR", "WarmupLinearTailLR", "WarmupMultiStepLR", "WarmupCosineLR"),
        "TEST.PRECISION": PRECISIONS,
        "TEST.VIDEO_SCORE": ("mean", "topk", "max"),
        "TEST.EMPTY_SCORE": ("skip", "0", "1"),
        "TEST.IMAGE_SCORE": ("mean", "max", "topk"),
        "INPUT.FORMAT": ("RGB",),
        "MODEL.SWIN_UNET.DIVERSITY": ("features", "printed", "none"),
        "MODEL.MESORCH.LOW_PASS": ("published", "square"),
    }
    for key, allowed in choices.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        if node not in allowed:
            raise ConfigError(f"{key} is '{node}': it must be one of {', '.join(allowed)}")
    if cfg.TEST.PRECISION == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("TEST.PRECISION float16 needs a GPU: use bfloat16 or float32")
    if cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SOLVER.AMP.PRECISION float16 needs a GPU: use bfloat16, or SOLVER.AMP.ENABLED False")
    _check_sam(cfg.SOLVER)
    tile = cfg.TEST.TILE
    if tile.SIZE:
        check_tiles(size=tile.SIZE, overlap=tile.OVERLAP, score=tile.SCORE, batch_size=tile.BATCH_SIZE)


def _check_sam(solver: CfgNode) -> None:
    if not solver.SAM.ENABLED:
        return
    if solver.SAM.RHO <= 0:
        raise ConfigError(f"SOLVER.SAM.RHO is {solver.SAM.RHO}: it must be positive (or SOLVER.SAM.ENABLED False)")
    if solver.AMP.ENABLED and solver.AMP.PRECISION == "float16":
        raise ConfigError("SOLVER.SAM.ENABLED does not go with SOLVER.AMP.PRECISION float16: use bfloat16")
