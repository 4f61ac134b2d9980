"""Config keys that belong to a dataclass: the node generated from it, and the dataclass read back from the node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def keys_of(options: type) -> dict[str, Any]:
    """Return a key for each field of a dataclass: its name in capitals, its default with lists for tuples."""
    defaults = {field.name.upper(): field.default for field in fields(options)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def options_of(options: type[Options], node: Mapping[str, Any], **instead: Any) -> Options:
    """Make a dataclass from the keys that `keys_of` gave it.

    Args:
        options: the dataclass.
        node: holds its keys, and maybe others.
        instead: values of fields for which the node is not asked.

    Raises:
        ValueError: as the dataclass.
    """
    values = {field.name: node[field.name.upper()] for field in fields(options)} | instead  # type: ignore[arg-type]
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
