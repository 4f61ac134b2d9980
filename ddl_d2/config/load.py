"""Finding config files, and reading them with `KEY VALUE` options into a checked, frozen config."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from ddl_d2.config.checks import check_config
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.renamed import current_options, current_tree
from ddl_d2.errors import ConfigError

logger = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parent.parent


def read_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Read a config file, apply the options of a command line, check the result and freeze it.

    Args:
        config_file: a path or a name, see `find_config`.
        opts: KEY VALUE KEY VALUE ...

    Raises:
        ConfigError: no such file, not YAML, an unknown key, a value of the wrong type, a combination that cannot
            work, or a `_BASE_` from the network; names the file and the key.
    """
    path = find_config(config_file)
    cfg = get_cfg()
    add_ddl_config(cfg)
    try:
        # allow_unsafe=False: a config is data; YAML tags that build Python objects are refused.
        cfg.merge_from_other_cfg(CfgNode(_typed_tree(current_tree(_read_yaml(path)), cfg)))
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
        cfg.merge_from_list(_typed_options(current_options(opts), cfg))
    except (KeyError, ValueError, TypeError, AssertionError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"option on the command line: {_one_line(error)}") from error
    check_config(cfg)
    cfg.freeze()
    return cfg


def find_config(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a config file.

    Args:
        name_or_path: the path of a file; or, where there is no such file, one of `list_configs`, such as
            "ddl_i/mask2former_swin_tiny", with or without "configs/" before and ".yaml" behind it.

    Raises:
        ConfigError: neither; says which names are close, and where all are.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    names = list_configs()
    if name in names:
        return _configs_folder() / f"{name}.yaml"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    meant = f", did you mean {' or '.join(close)}?" if close else "."
    raise ConfigError(
        f"{path}: no such config file, and no config of this name{meant} `ddl-d2 configs` lists all {len(names)} names"
    )


def list_configs() -> list[str]:
    """Return the names of the configs that come with ddl_d2, such as "ddl_i/mask2former_swin_tiny", sorted."""
    folder = _configs_folder()
    files = (path for path in folder.rglob("*.yaml") if not path.name.startswith("Base-"))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def _configs_folder() -> Path:
    """The configs inside an installed package, or beside the package in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def config_from_text(text: str) -> CfgNode:
    """Make a config, thawed, of what a config's `dump` wrote; its datasets are not registered.

    Raises:
        ConfigError: as `read_config`.
    """
    cfg = get_cfg()
    add_ddl_config(cfg)
    try:
        cfg.merge_from_other_cfg(CfgNode(_typed_tree(current_tree(yaml.safe_load(text)), cfg)))
    except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(_one_line(error)) from error
    return cfg


def _typed_tree(values: dict[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """Take whole numbers for floats where `cfg` has a float; Detectron2 would refuse `PROB: 0`."""
    typed: dict[str, Any] = {}
    for name, value in values.items():
        default = cfg.get(name)
        if isinstance(value, dict) and isinstance(default, CfgNode):
            typed[name] = _typed_tree(value, default)
        else:
            typed[name] = float(value) if isinstance(default, float) and type(value) is int else value
    return typed


def _typed_options(options: Sequence[str], cfg: CfgNode) -> list[str]:
    """As `_typed_tree`, for a command line; a text key also takes what looks like a number (OUTPUT_DIR 2024_11_28)."""
    words = []
    for key, word in zip(options[::2], options[1::2], strict=True):
        default: Any = cfg
        for name in key.split("."):
            default = default.get(name) if isinstance(default, CfgNode) else None
        whole = word.removeprefix("-").isdigit()
        if isinstance(default, float) and whole:
            word = f"{word}.0"
        elif isinstance(default, str) and word.replace("_", "").replace(".", "").isdigit():
            word = repr(word)
        words += [key, word]
    return words


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
    said = " ".join(str(text).split())[:400]
    if "(<class 'str'> vs. <class 'int'>)" in said:
        return f"{said}. A name that reads as a number needs a folder before it (./20241128), or in YAML quotes"
    if re.search(r"\(<class '(tuple|list)'> vs\. <class 'str'>\)", said):
        return f"""{said}. A list of one name is written "('name',)", with its quotes"""
    return said
