"""What the pages of the project show: their blocks of code, the commands in them, their links and code spans."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "datasets/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LANGUAGES = {"sh", "python", "text", "json", "yaml"}


class Block(NamedTuple):
    """A fenced block of code: where it stands, in which language, and what it says."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}"


class Command(NamedTuple):
    """A shell command: where it stands, and its words. Settings of variables before it are left out."""

    place: str
    words: list[str]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, flags=re.M):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1].strip(), match[2])


def commands() -> Iterator[Command]:
    """Every shell command of every page."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                yield from commands_of(block)


def commands_of(block: Block) -> Iterator[Command]:
    """The shell commands of a block."""
    for line in block.text.replace("\\\n", " ").splitlines():
        yield from _commands_of(block.place, line)


def _commands_of(place: str, line: str) -> Iterator[Command]:
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word in ("&&", "||", ";", "|"):
            if words:
                yield Command(place, words)
            words = []
        elif words or not re.fullmatch(r"[A-Z_0-9]+=.*", word):
            words.append(word)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", page.read_text(encoding="utf-8"), flags=re.M)


def code_spans(page: Path) -> list[str]:
    """What stands between single backticks in a page's prose."""
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page).replace("\n", " "))


def links(page: Path) -> list[str]:
    """The targets of a page's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
