"""The config reference: every key of `ddl_d2/config/defaults.py`, its default, and the comment above it.

mkdocs calls `on_page_markdown` while it builds (`hooks:` of mkdocs.yml), so the page cannot lag behind the code. The
file is read, not run: neither torch nor Detectron2 is needed. Keys that belong to a dataclass are the fields of that
class, such as `ForgeryOptions` of `ddl_d2/config/forgery_options.py`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = ROOT / "ddl_d2" / "config" / "defaults.py"
MARKER = "<!-- the keys -->"


class Key(NamedTuple):
    """A config key; `default` is None for a node, which has keys below it."""

    name: str
    default: str | None
    comment: str


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the keys where a page has the marker; called by mkdocs for every page."""
    return markdown.replace(MARKER, "\n".join(_lines())) if MARKER in markdown else markdown


def all_keys() -> list[Key]:
    """All keys, in the order of the file; the keys of a dataclass follow the node that they belong to."""
    source = DEFAULTS.read_text(encoding="utf-8")
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        name = ast.unparse(node.targets[0]).removeprefix("cfg.")
        comment = _comment_above(source, node.lineno)
        if isinstance(node.value, ast.Call):
            found.append((node.lineno, [Key(name, None, comment), *_options(name, node.value)]))
        else:
            found.append((node.lineno, [Key(name, _shown(node.value), comment)]))
    return [key for _, group in sorted(found, key=lambda pair: pair[0]) for key in group]


def _lines() -> Iterator[str]:
    """The page's tables in Markdown, one for each group of keys."""
    groups: dict[str, list[Key]] = {}
    about = {}
    for key in all_keys():
        if key.default is None:
            about[key.name] = key.comment
            groups.setdefault(key.name, [])
        else:
            groups.setdefault(key.name.rpartition(".")[0], []).append(key)
    for group, members in groups.items():
        if members:
            yield from (f"## {group}", "", about.get(group, ""), "", "| key | default | meaning |", "|---|---|---|")
            yield from (f"| `{key.name}` | `{key.default}` | {_cell(key.comment)} |" for key in members)
            yield ""


def _options(prefix: str, call: ast.Call) -> list[Key]:
    """The keys of `CfgNode(keys_of(Options))`: the fields of that dataclass; none of a plain `CfgNode()`."""
    if not call.args:
        return []
    options = _imported(ast.unparse(call.args[0].args[0]))  # type: ignore[attr-defined]
    source = inspect.getsource(options)
    lines = {node.target.id: node.lineno for node in ast.walk(ast.parse(source)) if _is_field(node)}  # type: ignore[attr-defined]
    return [
        Key(f"{prefix}.{field.name.upper()}", _yaml(field.default), _comment_above(source, lines[field.name]))
        for field in dataclasses.fields(options)
    ]


def _imported(name: str) -> Any:
    """A class that the list of keys imports."""
    imports = (node for node in ast.walk(ast.parse(DEFAULTS.read_text())) if isinstance(node, ast.ImportFrom))
    module = next(node.module for node in imports if name in (alias.name for alias in node.names))
    return getattr(_module(str(module)), name)


def _is_field(node: ast.AST) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def _shown(value: ast.expr) -> str:
    """A default as a config file has it; an expression that asks for the machine as it stands."""
    if isinstance(value, ast.Name):
        return _yaml(getattr(_module("ddl_d2.utils.limits"), value.id))
    try:
        return _yaml(ast.literal_eval(value))
    except ValueError:
        return ast.unparse(value)


def _yaml(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value).replace("'", '"')


def _module(name: str) -> Any:
    """A module of the package, which need not be installed; those read here import neither torch nor Detectron2."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(name)


def _comment_above(source: str, line: int) -> str:
    """The comment lines directly above a line, joined."""
    lines = source.splitlines()[: line - 1]
    words = []
    while lines and lines[-1].lstrip().startswith("# "):
        words.insert(0, lines.pop().strip().removeprefix("# "))
    return " ".join(words)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
