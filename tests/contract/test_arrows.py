"""Which room may import which (the layout's arrows point one way)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ddl_d2"
# Modules that import nothing of the package, so that any room may import them.
GROUND = {"config", "version", "files"}
# What each room may import, besides itself and those.
ALLOWED = {
    "layers": set(),
    "modeling": {"layers"},
    "data": {"layers"},
    "evaluation": {"data", "layers"},
    "fusion": {"data", "evaluation", "layers"},
    "inference": {"engine", "modeling", "data", "evaluation", "fusion", "layers"},
    "engine": {"inference", "modeling", "data", "evaluation", "fusion", "layers"},
}


def _imported_rooms(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("ddl_d2.")} - GROUND - {"__version__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_arrows(room):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        beyond = _imported_rooms(path) - ALLOWED[room] - {room}
        assert not beyond, f"{path.relative_to(ROOT)} imports {sorted(beyond)}"


@pytest.mark.parametrize("module", sorted(GROUND))
def test_the_ground_stands_on_nothing(module):
    assert _imported_rooms(PACKAGE / f"{module}.py") == set()


def test_every_room_has_its_arrows():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert rooms == set(ALLOWED) - ({"fusion"} if not list((PACKAGE / "fusion").rglob("*.py")) else set())
