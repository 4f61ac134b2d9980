"""From a config file and `KEY VALUE` overrides to a checked, frozen configuration."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg

from ddl_d2.config.checks import check_config
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.renamed import current_options, current_tree
from ddl_d2.errors import ConfigError

logger = logging.getLogger(__name__)


def read_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Read `config_file`, apply `opts` (KEY VALUE KEY VALUE ...) and check the result; -> frozen config.

    Raises ConfigError naming the file and the key: no such file, not YAML, unknown key, value of the wrong type, a
    `_BASE_` from the network.
    """
    path = Path(config_file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    cfg = get_cfg()
    add_ddl_config(cfg)
    try:
        # allow_unsafe=False: a config is data; YAML tags that build Python objects are refused.
        cfg.merge_from_other_cfg(CfgNode(current_tree(_read_yaml(path))))
    except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error
    return merge_options(cfg, opts)


def merge_options(cfg: CfgNode, opts: Sequence[str]) -> CfgNode:
    """Apply KEY VALUE KEY VALUE ... to a thawed config, check it and freeze it; returns it.

    Raises ConfigError naming the key.
    """
    if len(opts) % 2:
        raise ConfigError(f"options come in pairs KEY VALUE, but {len(opts)} words were given: {' '.join(opts)}")
    try:
        cfg.merge_from_list(current_options(opts))
    except (KeyError, ValueError, TypeError, AssertionError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"option on the command line: {_one_line(error)}") from error
    check_config(cfg)
    cfg.freeze()
    return cfg


def config_from_text(text: str) -> CfgNode:
    """What a config's `dump` wrote -> the config, thawed; its datasets are not registered.

    Raises ConfigError as `read_config`.
    """
    cfg = get_cfg()
    add_ddl_config(cfg)
    try:
        cfg.merge_from_other_cfg(CfgNode(current_tree(yaml.safe_load(text))))
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
