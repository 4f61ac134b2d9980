"""The rows of docs/reproduce.md: a block of commands each, and the metrics that its section names."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ddl_d2.evaluation import METRIC_NAMES, PER_TYPE_METRIC_NAMES, VIDEO_METRIC_NAMES
from tests.contract.documents import blocks, commands_of

_HEADING = re.compile(r"^(#+) +(.*)$")


class Row(NamedTuple):
    """A row of a published table.

    Attributes:
        title: the headings above it, and the configs that it trains.
        place: page and line of its block.
        commands: the words of each, as typed.
        metrics: names of metrics that the section shows, which its tables must hold.
    """

    title: str
    place: str
    commands: list[list[str]]
    metrics: list[str]


def rows_of(page: Path) -> list[Row]:
    """Read the rows of a page: the blocks of shell commands that are the project's own, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    for block in blocks(page):
        words = [command.words for command in commands_of(block)] if block.language == "sh" else []
        if not words or any(command[0] != "ddl-d2" for command in words):
            continue
        configs = [after for command in words for flag, after in pairwise(command) if flag == "--config-file"]
        title = ": ".join([*_headings(lines[: block.line]).values(), *configs])
        found.append(Row(title, block.place, words, _metrics(_section(lines, block.line))))
    return found


def _headings(lines: list[str]) -> dict[int, str]:
    """The heading of each level, below the page's own, that the last line stands under."""
    found: dict[int, str] = {}
    for line in _without_code(lines):
        if match := _HEADING.match(line):
            level = len(match[1])
            found = {number: title for number, title in found.items() if number < level} | {level: match[2]}
    return {level: title for level, title in found.items() if level > 1}


def _section(lines: list[str], line: int) -> str:
    """The prose from the heading above a line to the next heading."""
    prose = _without_code(lines)
    start = max(number for number, text in enumerate(prose[:line]) if _HEADING.match(text))
    end = next((n for n, text in enumerate(prose) if n >= line and _HEADING.match(text)), len(prose))
    return "\n".join(prose[start:end])


def _without_code(lines: list[str]) -> list[str]:
    """The lines, those of fenced blocks blank."""
    inside, kept = False, []
    for line in lines:
        fence = line.startswith("```")
        kept.append("" if inside or fence else line)
        inside ^= fence
    return kept


def _metrics(section: str) -> list[str]:
    known = {*METRIC_NAMES, *VIDEO_METRIC_NAMES}
    spans = set(re.findall(r"`(\w+)`", section))
    return sorted(name for name in spans if name in known or _is_of_a_type(name))


def _is_of_a_type(name: str) -> bool:
    return any(re.fullmatch(rf"{key}_[A-Z]\w*", name) for key in PER_TYPE_METRIC_NAMES)
