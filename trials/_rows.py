"""The commands of docs/reproduce.md, in order, each with the metrics that its section names."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ddl_d2.evaluation import METRIC_NAMES, PER_TYPE_METRIC_NAMES, VIDEO_METRIC_NAMES
from tests.contract.documents import Block, blocks, commands_of

_HEADING = re.compile(r"^(#+) +(.*)$")
_SETTING = re.compile(r"^([A-Z_0-9]+)=(\S+)$", flags=re.M)


class Step(NamedTuple):
    """A command of a row.

    Attributes:
        title: the headings above it: the table that the row belongs to.
        place: page and line of its block.
        words: as typed, after `ddl-d2`; variables that the block sets are filled in.
        metrics: names of metrics that the section shows, which a table of the command must hold.
    """

    title: str
    place: str
    words: list[str]
    metrics: list[str]

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.words)}"


def steps_of(page: Path) -> list[Step]:
    """Read the commands of a page that are the project's own, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    for block in blocks(page):
        if block.language == "sh":
            title = ": ".join(_headings(lines[: block.line]))
            metrics = _metrics(_section(lines, block.line))
            found += [Step(title, block.place, words[1:], metrics) for words in _commands(block)]
    return found


def _commands(block: Block) -> list[list[str]]:
    values = {f"${name}": value for name, value in _SETTING.findall(block.text)}
    typed = [command.words for command in commands_of(block) if command.words[0] == "ddl-d2"]
    return [[values.get(word, word) for word in words] for words in typed]


def _headings(lines: list[str]) -> list[str]:
    """The headings that the last line stands under, below the page's own."""
    found: dict[int, str] = {}
    for line in _without_code(lines):
        if match := _HEADING.match(line):
            level = len(match[1])
            found = {number: title for number, title in found.items() if number < level} | {level: match[2]}
    return [title for level, title in found.items() if level > 1]


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
