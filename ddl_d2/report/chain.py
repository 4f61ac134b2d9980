"""A folder of examination records in a chain: a change of any byte of it is found.

    FOLDER/
      chain.jsonl      one line per record, each with the sha256 of the line before it
      0001-photo.json  the record
      0001-photo.html  the same as a page

A line holds the number, the names and the sha256 of both files, the time, the sha256 of the line before (`previous`),
with a key the HMAC-SHA256 of these (`hmac_sha256`), and the sha256 of all of that (`sha256`). Without a key whoever can
write the folder could make the whole chain anew; and lines taken off the end leave a whole chain. Against both the last
sha256 (the head) is to be kept elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddl_d2.errors import InputError, RecordError
from ddl_d2.io.atomic import write_whole
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.report.findings import canonical, sha256_of

CHAIN = "chain.jsonl"
FIRST = "0" * 64
"""What the first line has as the sha256 of the line before."""

_SHORTEST_KEY = 16  # bytes


def read_key(path: str | os.PathLike[str]) -> bytes:
    """Read a key from a file: all its bytes, at least 16.

    Raises:
        InputError: it is shorter.
        OSError: it cannot be read.
    """
    key = Path(path).read_bytes()
    if len(key) < _SHORTEST_KEY:
        raise InputError(f"{os.fspath(path)}: a key has at least {_SHORTEST_KEY} bytes (`openssl rand -out FILE 32`)")
    return key


@dataclass
class Chain:
    """The chain of a folder.

    Attributes:
        folder: where the records are.
        key: for the HMAC of new lines; None for none.
        lines: what the chain holds.
    """

    folder: Path
    key: bytes | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], key: bytes | None = None) -> Chain:
        """Read a folder's chain, to add to it; without one it begins.

        Raises:
            RecordError: the chain is broken: nothing is added to such a one. Or it has a key, and none or another is
                given; or has none, and one is.
        """
        chain = cls(Path(folder), key)
        if (chain.folder / CHAIN).exists():
            chain.lines = verify_chain(chain.folder, key)
            if chain.lines and ("hmac_sha256" in chain.lines[-1]) != (key is not None):
                raise RecordError(f"{chain.folder / CHAIN}: every line of a chain has an HMAC, or none has: see --key")
        return chain

    @property
    def head(self) -> str:
        """The sha256 of the last line: whoever keeps it elsewhere sees that nothing was taken away or made anew."""
        return self.lines[-1]["sha256"] if self.lines else FIRST

    @property
    def next_number(self) -> int:
        """The number of the next record, from 1."""
        return len(self.lines) + 1

    def add(self, stem: str, record: bytes, page: bytes) -> Path:
        """Write a record and its page, and then their line.

        Args:
            stem: of the files' names, which begin with the number.
            record: the content of the JSON file.
            page: the content of the HTML file.

        Returns:
            the JSON file.

        Raises:
            OSError: the disk refuses; the chain is then as before.
        """
        number = self.next_number
        names = {kind: f"{number:04}-{stem}.{kind}" for kind in ("json", "html")}
        for name, data in ((names["json"], record), (names["html"], page)):
            write_whole(self.folder / name, data, durable=True)
        content = {
            "number": number,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "record": names["json"],
            "record_sha256": hashlib.sha256(record).hexdigest(),
            "page": names["html"],
            "page_sha256": hashlib.sha256(page).hexdigest(),
            "previous": self.head,
        }
        line = _sealed(content, self.key)
        with open(self.folder / CHAIN, "ab") as file:
            file.write(canonical(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)
        return self.folder / names["json"]


def verify_chain(folder: str | os.PathLike[str], key: bytes | None = None, *, head: str = "") -> list[dict[str, Any]]:
    """Check every byte of a folder's chain, its records and its pages.

    Args:
        folder: with `chain.jsonl`.
        key: that the HMACs were made with; None does not check them.
        head: the sha256 that the last line must have; "" for any.

    Returns:
        the lines.

    Raises:
        RecordError: says what is wrong, and where.
    """
    path = Path(folder) / CHAIN
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise RecordError(f"{path}: holds no record; its lines were taken away")
    if not content.endswith(b"\n"):
        raise RecordError(f"{path}: the last line is cut off")
    lines: list[dict[str, Any]] = []
    previous = FIRST
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        line = _checked_line(f"{path}, line {number}", text, number, previous, key)
        _check_files(Path(folder), line)
        previous = line["sha256"]
        lines.append(line)
    if head and previous != head.lower():
        raise RecordError(f"{path}: ends with {previous}, not with {head}: lines were taken away, added or made anew")
    _check_no_others(Path(folder), lines)
    return lines


def _sealed(content: Mapping[str, Any], key: bytes | None) -> dict[str, Any]:
    """A line with what closes it: with a key its HMAC, and the sha256 of all that."""
    line = dict(content)
    if key is not None:
        line["hmac_sha256"] = hmac.new(key, canonical(content), "sha256").hexdigest()
    return line | {"sha256": sha256_of(line)}


def _checked_line(place: str, text: bytes, number: int, previous: str, key: bytes | None) -> dict[str, Any]:
    """A line that is what it was when it was written, or RecordError."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{place}: was changed (it is not JSON)") from error
    # One form only, so that no byte can change unseen.
    if not isinstance(line, dict) or canonical(line) != text:
        raise RecordError(f"{place}: was changed (it is not as it was written)")
    if line.get("sha256") != sha256_of({name: value for name, value in line.items() if name != "sha256"}):
        raise RecordError(f"{place}: was changed (its sha256 is another)")
    if line.get("number") != number or line.get("previous") != previous:
        raise RecordError(f"{place}: does not follow the line before: lines were taken out, added or moved")
    if key is not None:
        content = {name: value for name, value in line.items() if name not in ("sha256", "hmac_sha256")}
        expected = _sealed(content, key)["hmac_sha256"]
        if not hmac.compare_digest(str(line.get("hmac_sha256", "")), expected):
            raise RecordError(f"{place}: its HMAC is not of this key: the line was changed, or made with another key")
    return line


def _check_files(folder: Path, line: Mapping[str, Any]) -> None:
    for kind in ("record", "page"):
        path = folder / Path(line[kind]).name
        if not path.is_file():
            raise RecordError(f"{path}: is missing, and the chain has it")
        if file_sha256(path) != line[f"{kind}_sha256"]:
            raise RecordError(f"{path}: was changed (its sha256 is not the one in the chain)")


def _check_no_others(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Refuse a record that looks like one of the chain's and is not."""
    known = {line[kind] for line in lines for kind in ("record", "page")}
    for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]*-*.*")):
        if path.suffix in (".json", ".html") and path.name not in known:
            raise RecordError(
                f"{path}: is not in the chain: it was added, its line was taken away, or its writing was "
                "interrupted (then delete it)"
            )
