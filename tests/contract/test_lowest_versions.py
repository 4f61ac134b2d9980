"""The floors of pyproject.toml are the versions of `make test-lowest`, and none is above the pinned ones."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT


def _pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"([\w.-]+)==([\w.]+)", line.strip()) for line in lines)
    return {match[1].lower().replace("_", "-"): Version(match[2]) for match in found if match}


def _floors() -> dict[str, Version]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = map(Requirement, project["dependencies"])
    return {r.name.lower(): Version(next(s.version for s in r.specifier if s.operator == ">=")) for r in requirements}


def test_the_floors_are_what_is_tested():
    floors = _floors()
    for name, version in _pinned("lowest.txt").items():
        assert version.release[: len(floors[name].release)] == floors[name].release, name


def test_no_floor_is_above_the_pinned_version():
    pinned = _pinned("constraints.txt")
    for name, floor in _floors().items():
        assert floor <= pinned[name], name
