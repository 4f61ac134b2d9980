"""What the project says of an image never claims more than a likelihood: two words that no message or page has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# "A proof against ..." or "to prove a theorem" are other words; these are what a verdict must not say of itself.
FORBIDDEN = re.compile(r"\b(proves|proven|guaranteed|guarantees)\b", re.IGNORECASE)
SOURCES = sorted(path for room in ("ddl_d2", "tools") for path in (ROOT / room).rglob("*.py"))
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").glob("*.md"), ROOT / "README.md"])


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """The line and text of every string of a Python file, docstrings and parts of f-strings among them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_string_of_the_package_claims_certainty(path):
    found = [f"line {line}: {text[:80]}" for line, text in strings_of(path) if FORBIDDEN.search(text)]
    assert not found, f"{path}: {found}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_claims_certainty(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"line {number}: {line[:80]}" for number, line in enumerate(lines, 1) if FORBIDDEN.search(line)]
    assert not found, f"{path}: {found}"


@pytest.mark.parametrize("text", ["This proves it.", "Guaranteed to be forged", 'f"it {x} guarantees"'])
def test_the_words_are_found(text, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(f"x = 1\ny = {text!r}\n")
    assert any(FORBIDDEN.search(found) for _, found in strings_of(path))
