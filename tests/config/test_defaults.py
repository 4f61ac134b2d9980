"""The list of keys: each has its comment, and those of a dataclass are the dataclass's."""

import dataclasses
import inspect
import itertools
import re

import pytest
from detectron2.config import CfgNode, get_cfg

from ddl_d2.config import defaults, forgery_options
from ddl_d2.config.dataclass_keys import keys_of, options_of
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.forgery_options import REGION_NAMES, ForgeryOptions, PostOptions
from ddl_d2.config.span_options import SpanOptions
from ddl_d2.config.swap_options import SwapOptions
from ddl_d2.forging.regions import REGIONS
from ddl_d2.utils.limits import MAX_PIXELS

# Node -> the dataclass that its keys are generated from.
GENERATED = {
    "INPUT.SELF_BLEND": ForgeryOptions,
    "INPUT.SELF_BLEND.POST": PostOptions,
    "INPUT.FACE_SWAP": SwapOptions,
    "INPUT.SPANS": SpanOptions,
}


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ddl_config(cfg)
    return cfg


def commented(source: str, assignment: str) -> dict[str, bool]:
    """Name -> whether the line above its assignment is a comment; `assignment` has the name as its only group."""
    lines = source.splitlines()
    found = [(re.match(assignment, line), above) for above, line in itertools.pairwise(lines)]
    return {match[1]: above.lstrip().startswith("# ") for match, above in found if match}


def test_every_key_has_a_comment_above_it():
    keys = commented(inspect.getsource(defaults), r"    cfg\.([A-Z0-9_.]+) = ")
    assert len(keys) > 150
    assert [key for key, has_comment in keys.items() if not has_comment] == []


@pytest.mark.parametrize("options", GENERATED.values())
def test_every_option_has_a_comment_above_it(options):
    names = commented(inspect.getsource(options), r"    ([a-z0-9_]+): .* = ")
    assert list(names) == [field.name for field in dataclasses.fields(options)]
    assert all(names.values()), names


def test_no_key_is_added_elsewhere(cfg):
    """What is written in the list, and what the dataclasses give, are all the keys that are new."""

    def flat(node: CfgNode, prefix: str = "") -> set[str]:
        keys = set()
        for key, value in node.items():
            keys |= flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {prefix + key}
        return keys

    written = set(commented(inspect.getsource(defaults), r"    cfg\.([A-Z0-9_.]+) = "))
    generated = {f"{node}.{key}" for node, options in GENERATED.items() for key in keys_of(options)}
    assert flat(cfg) - flat(get_cfg()) <= written | generated
    assert not written & generated


def test_keys_of_a_dataclass_and_back(cfg):
    assert cfg.INPUT.SELF_BLEND.DRAG_COUNT == [1, 2]
    for name, options in GENERATED.items():
        node = cfg
        for part in name.split("."):
            node = node[part]
        assert options_of(options, node) == options()
    assert options_of(PostOptions, cfg.INPUT.SELF_BLEND.POST, hue=(0.0, 1.0)) == PostOptions(hue=(0.0, 1.0))


def test_two_configs_share_no_lists(cfg):
    cfg.INPUT.SELF_BLEND.PARTS.append("face")
    assert "face" not in keys_of(ForgeryOptions)["PARTS"]


def test_names_and_limits_are_those_of_the_rooms_that_use_them(cfg):
    assert set(REGION_NAMES) == set(REGIONS)
    assert list(REGION_NAMES[:-1]) == list(forgery_options.PART_NAMES)
    assert cfg.INPUT.MAX_PIXELS == MAX_PIXELS
