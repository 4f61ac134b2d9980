"""What users write in configs, scripts and command lines; a change here is a decision.

After deciding: `python -m tests.contract.test_public_surface` rewrites the list.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

import ddl_d2
import ddl_d2.api
from ddl_d2.cli.main import MODULES
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.data.datasets import register_all_ddl
from ddl_d2.evaluation.results import METRIC_NAMES

SURFACE = Path(__file__).with_name("public_surface.txt")


def _flat(cfg: CfgNode, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _config_lines() -> list[str]:
    before, cfg = _flat(get_cfg()), get_cfg()
    add_ddl_config(cfg)
    after = _flat(cfg) | {"MODEL.DEVICE": "cuda if there is one"}
    return [f"config {k} = {after[k]!r}" for k in sorted(after) if k not in before or before[k] != after[k]]


def _flag_lines() -> list[str]:
    lines = []
    for command, module in MODULES.items():
        lines += _flags_of(importlib.import_module(module).build_parser(), f"flag {command}")
    return lines


def _flags_of(parser: argparse.ArgumentParser, prefix: str) -> list[str]:
    """A line for each option and argument, also of commands within."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                lines += _flags_of(command, f"{prefix} {name}")
        elif action.dest != "help":
            lines.append(f"{prefix} {' '.join(action.option_strings or [action.dest])}")
    return sorted(lines)


def surface() -> str:
    """Everything public, a line each."""
    register_all_ddl()
    lines = _config_lines()
    lines += [f"meta architecture {name}" for name, c in META_ARCH_REGISTRY if c.__module__.startswith("ddl_d2")]
    lines += [f"backbone {name}" for name, c in BACKBONE_REGISTRY if c.__module__.startswith("ddl_d2")]
    lines += [f"head {name}" for name, c in SEM_SEG_HEADS_REGISTRY if c.__module__.startswith("ddl_d2")]
    lines += [f"dataset {name}" for name in sorted(DatasetCatalog.list()) if name.startswith("ddl_i")]
    lines += [f"metric {name}" for name in METRIC_NAMES]
    lines += [f"operator {torch.ops.ddl_d2.ms_deform_attn.default._schema}"]
    lines += [f"command {name}" for name in sorted(MODULES)]
    lines += _flag_lines()
    lines += [f"python ddl_d2.{name}" for name in ddl_d2.__all__]
    return "\n".join(lines) + "\n"


def test_public_surface():
    expected, got = SURFACE.read_text(encoding="utf-8").splitlines(), surface().splitlines()
    difference = difflib.unified_diff(expected, got, lineterm="", n=0)
    changes = [line for line in difference if line[:2] not in ("--", "++", "@@")]
    assert not changes, "the public surface changed:\n" + "\n".join(changes)


if __name__ == "__main__":
    SURFACE.write_text(surface(), encoding="utf-8")
