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
from ddl_d2.forging.regions import REGIONS
from ddl_d2.utils.limits import MAX_PIXELS


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


@pytest.mark.parametrize("options", [ForgeryOptions, PostOptions])
def test_every_option_has_a_comment_above_it(options):
    names = commented(inspect.getsource(options), r"    ([a-z_]+): .* = ")
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
    generated = {f"INPUT.SELF_BLEND.{key}" for key in keys_of(ForgeryOptions)}
    generated |= {f"INPUT.SELF_BLEND.POST.{key}" for key in keys_of(PostOptions)}
    assert flat(cfg) - flat(get_cfg()) <= written | generated
    assert not written & generated


def test_keys_of_a_dataclass_and_back(cfg):
    assert cfg.INPUT.SELF_BLEND.DRAG_COUNT == [1, 2]
    assert options_of(ForgeryOptions, cfg.INPUT.SELF_BLEND) == ForgeryOptions()
    assert options_of(PostOptions, cfg.INPUT.SELF_BLEND.POST) == PostOptions()
    assert options_of(PostOptions, cfg.INPUT.SELF_BLEND.POST, hue=(0.0, 1.0)) == PostOptions(hue=(0.0, 1.0))


def test_two_configs_share_no_lists(cfg):
    cfg.INPUT.SELF_BLEND.PARTS.append("face")
    assert "face" not in keys_of(ForgeryOptions)["PARTS"]


def test_names_and_limits_are_those_of_the_rooms_that_use_them(cfg):
    assert set(REGION_NAMES) == set(REGIONS)
    assert list(REGION_NAMES[:-1]) == list(forgery_options.PART_NAMES)
    assert cfg.INPUT.MAX_PIXELS == MAX_PIXELS
