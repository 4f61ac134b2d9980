"""Which room may import which (the layout's arrows point one way)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ddl_d2"
# What each room may import, besides itself, `errors` and `version`.
ALLOWED: dict[str, set[str]] = {"utils": set(), "layers": set()}
ALLOWED["config"] = {"utils"}
ALLOWED["io"] = {"utils"}
ALLOWED["faces"] = {"io", "config", "utils"}
ALLOWED["forging"] = {"faces", *ALLOWED["faces"]}
ALLOWED["data"] = {"forging", *ALLOWED["forging"]}
ALLOWED["predictions"] = {"io", "config", "utils"}
ALLOWED["modeling"] = {"layers", "io", "config", "utils"}
ALLOWED["solver"] = {"modeling", *ALLOWED["modeling"]}
ALLOWED["checkpoint"] = {"modeling", *ALLOWED["modeling"]}
ALLOWED["evaluation"] = {"predictions", "data", *ALLOWED["data"]}
ALLOWED["fusion"] = {"evaluation", *ALLOWED["evaluation"]}
ALLOWED["inference"] = {"checkpoint", "fusion", "modeling", "layers", *ALLOWED["fusion"]}
ALLOWED["report"] = {"inference", *ALLOWED["inference"]}
ALLOWED["serve"] = {"report", *ALLOWED["report"]}
ALLOWED["export"] = {"inference", *ALLOWED["inference"]}
ALLOWED["engine"] = {"inference", "solver", *ALLOWED["inference"]}
ALLOWED["cli"] = {"engine", "export", "report", "serve", "collect_env", "requirements", *ALLOWED["engine"]}


def _imported_modules(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name for name in names if name.startswith("ddl_d2.")}


def _imported_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imported_modules(path)} - {"errors", "version", "__version__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_arrows(room):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        beyond = _imported_rooms(path) - ALLOWED[room] - {room}
        assert not beyond, f"{path.relative_to(ROOT)} imports {sorted(beyond)}"


@pytest.mark.parametrize("module", ["errors", "version"])
def test_the_ground_stands_on_nothing(module):
    assert _imported_modules(PACKAGE / f"{module}.py") == set()


def test_every_room_has_its_arrows():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert rooms == set(ALLOWED)


def test_metrics_know_only_arrays_and_how_maps_are_stored():
    for path in sorted((PACKAGE / "evaluation/functional").glob("*.py")):
        for module in _imported_modules(path):
            assert module.startswith(("ddl_d2.evaluation.functional", "ddl_d2.predictions.maps")), f"{path}: {module}"
