"""The page of config keys holds every key, with the default that it has and the comment above it."""

from __future__ import annotations

import ast
import importlib.util
import sys

import pytest
from detectron2.config import CfgNode, get_cfg

from ddl_d2.config.defaults import add_ddl_config
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generator", ROOT / "docs" / "generate_config_reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and named tuples look their module up
    spec.loader.exec_module(module)
    return module


def flat(node: CfgNode, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {prefix + key: value}
    return found


def test_every_key_is_there_with_its_default_and_a_comment(generator):
    before, cfg = flat(get_cfg()), get_cfg()
    add_ddl_config(cfg)
    after = flat(cfg)
    keys = {key.name: key for key in generator.all_keys() if key.default is not None}
    assert set(after) - set(before) <= set(keys) <= set(after)
    assert {name for name in after if name in before and after[name] != before[name]} <= set(keys)
    for name, key in keys.items():
        assert key.comment, name
        if name != "MODEL.DEVICE":  # depends on the machine
            assert ast.literal_eval(key.default) == after[name], name


def test_the_page_shows_them(generator):
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    text = generator.on_page_markdown(page)
    assert generator.MARKER not in text
    assert "| `INPUT.SELF_BLEND.DRAG_COUNT` | `[1, 2]` | Number of local translations" in text
    assert "| `SOLVER.SAM.RHO` | `0.05` |" in text
    assert generator.on_page_markdown("another page") == "another page"
