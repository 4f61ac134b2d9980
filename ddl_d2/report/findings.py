"""Findings: what an examination says, each with how it is known, its limits and what else could explain it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

OBSERVED, DERIVED, INFERRED, NOT_AVAILABLE = "observed", "derived", "inferred", "not available"
KINDS = {
    OBSERVED: "read from the file as it is",
    DERIVED: "computed from the file by a stated method; the same file gives the same value",
    INFERRED: "a conclusion from observed and derived values, which other explanations may fit as well",
    NOT_AVAILABLE: "could not be examined, or was not",
}
"""The kinds of findings, each with what it means, in the order of a record."""


@dataclass(frozen=True)
class Finding:
    """One thing that an examination says.

    Attributes:
        name: by which programs find it, the same in every record.
        kind: one of `KINDS`.
        title: what it is about, some words.
        statement: what is said, in a sentence or two.
        value: the same as JSON values; None where there is none.
        limits: what it does not say.
        alternatives: what else could explain it; empty only for what is observed, which explains nothing.
    """

    name: str
    kind: str
    title: str
    statement: str
    limits: tuple[str, ...]
    alternatives: tuple[str, ...] = ()
    value: Any = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: {self.kind!r} is not a kind of finding ({', '.join(KINDS)})")
        if not self.limits or (self.kind in (DERIVED, INFERRED) and not self.alternatives):
            raise ValueError(f"{self.name}: a finding states its limits, and a conclusion its alternatives")

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return json.loads(json.dumps(asdict(self)))


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by kind, those of a kind as they come.

    Raises:
        ValueError: two have one name.
    """
    names = [finding.name for finding in findings]
    if len(set(names)) < len(names):
        raise ValueError(f"findings of one name: {', '.join(sorted(names))}")
    return sorted(findings, key=lambda finding: list(KINDS).index(finding.kind))


def canonical(value: Any) -> bytes:
    """JSON values as bytes, of which there is one form only: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: a NaN or an infinity, which JSON has not.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_of(value: Any) -> str:
    """The sha256 of JSON values in their canonical form, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()
