"""Repeating an examination from its record: the same findings to the byte, or what differs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddl_d2.checkpoint.shipped import list_weights, shipped_weights
from ddl_d2.errors import RecordError
from ddl_d2.inference.model import load_model
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.report.chain import CHAIN, verify_chain
from ddl_d2.report.examination import FORMAT, Examiner, findings_sha256


@dataclass(frozen=True)
class Repetition:
    """What came of repeating an examination.

    Attributes:
        same: the findings have the sha256 that the record states.
        findings_sha256: theirs.
        differences: what differs, in words: of what the findings depend on, and of the findings.
        chained: the record is in a chain that is whole.
    """

    same: bool
    findings_sha256: str
    differences: tuple[str, ...]
    chained: bool


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record.

    Raises:
        RecordError: it is none, or its findings are not those that its own sha256 was made of.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{os.fspath(path)}: the record cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RecordError(f"{os.fspath(path)}: not a record of `ddl-d2 examine` ({FORMAT})")
    try:
        made_of = findings_sha256(record["subject"]["sha256"], record["propositions"], record["findings"])
        changed = made_of != record["findings_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{os.fspath(path)}: the record is damaged ({error!r})") from error
    if changed:
        raise RecordError(f"{os.fspath(path)}: was changed: its findings do not have the sha256 that it states")
    return record


def repeat(
    path: Path,
    *,
    file: Path | None = None,
    weights: str | None = None,
    trust: Path | None = None,
    key: bytes | None = None,
) -> Repetition:
    """Examine again what a record is of, with the same weights and settings and as many threads.

    Args:
        path: the JSON file.
        file: where the examined file is now; None: where it was, or beside the record.
        weights: where the weights are now; None: where they were, or those that come with ddl_d2.
        trust: where the trust anchors are now; None: where they were.
        key: of the chain, if it has HMACs; None does not check them.

    Raises:
        RecordError: the record or its chain was changed; or the file, the weights or the trust anchors are missing or
            are others, so that there is nothing to repeat.
    """
    record = read_record(path)
    chained = (path.parent / CHAIN).is_file()
    if chained and path.name not in {line["record"] for line in verify_chain(path.parent, key)}:
        raise RecordError(f"{path}: is not in the chain beside it")
    model = record["model"]
    examiner_trust = record["settings"]["trust"]
    subject = _found("the examined file", record["subject"], file, path.parent)
    tensors = _found_weights(model, weights, path.parent)
    anchors = None if examiner_trust is None else _found("the trust anchors", examiner_trust, trust, path.parent)
    device = record["environment"]["device"]
    with _threads(record["environment"]["threads"]), _files_of(record) as (config, calibration):
        examiner = Examiner(
            load_model(
                tensors,
                config=config,
                device="cpu" if device == "cpu" else None,
                threshold=model["threshold"] if calibration is None else None,
                calibration=calibration,
            ),
            frames=record["settings"]["frames"],
            trust=anchors,
            fragility=record["settings"]["fragility"],
        )
        again = examiner.examine(subject, name=record["subject"]["file"]).record
    return Repetition(
        again["findings_sha256"] == record["findings_sha256"],
        again["findings_sha256"],
        (*_made_otherwise(record, again), *_found_otherwise(record, again)),
        chained,
    )


def _found(what: str, stated: Mapping[str, str], now: Path | None, folder: Path) -> Path:
    """Where a file is, if it is the one with the stated sha256."""
    places = [now] if now is not None else [Path(stated["file"]), folder / Path(stated["file"]).name]
    for place in places:
        if place.is_file():
            if file_sha256(place) != stated["sha256"]:
                raise RecordError(f"{place}: is not {what}: its sha256 is not {stated['sha256']}")
            return place
    raise RecordError(f"{what} is not at {' or '.join(map(str, places))}: say where it is")


def _found_weights(model: Mapping[str, Any], now: str | None, folder: Path) -> str:
    stated = {"file": model["weights"], "sha256": model["weights_sha256"]}
    if now in list_weights() or (
        now is None and not Path(model["weights"]).is_file() and model["name"] in list_weights()
    ):
        now = str(shipped_weights(now or model["name"]))
    return str(_found("the file of weights", stated, None if now is None else Path(now), folder))


def _made_otherwise(record: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[str]:
    """What the findings depend on and is not as it was."""
    before, now = record["environment"], again["environment"]
    for name in before["versions"].keys() | now["versions"].keys():
        old, new = before["versions"].get(name), now["versions"].get(name)
        if old != new:
            yield f"version of {name}: {old or 'not installed'} then, {new or 'not installed'} now"
    for name in ("device", "threads", "instructions", "machine"):
        if before[name] != now[name]:
            yield f"{name}: {before[name]} then, {now[name]} now"
    for name in ("config_sha256", "card_sha256"):
        if record["model"][name] != again["model"][name]:
            yield f"{name}: {record['model'][name]} then, {again['model'][name]} now"


def _found_otherwise(record: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[str]:
    """Findings that are not as they were."""
    before, now = ({finding["name"]: finding for finding in one["findings"]} for one in (record, again))
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            yield f"finding {name}: only {'now' if old is None else 'then'}"
        elif old != new:
            part = next(part for part in new if new[part] != old.get(part))
            yield f"finding {name}: {part} {_short(old.get(part))} then, {_short(new[part])} now"
    if record["propositions"] != again["propositions"]:
        yield "the propositions are worded otherwise"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The block computes with `count` threads: sums differ in their last digits with their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _files_of(record: Mapping[str, Any]) -> Iterator[tuple[Path, Path | None]]:
    """The config of a record and its calibration, if it has one, as the files from which a model is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        config, calibration = Path(folder) / "config.yaml", Path(folder) / "calibration.json"
        config.write_text(record["model"]["config"], encoding="utf-8")
        calibration.write_text(json.dumps(record["calibration"]), encoding="utf-8")
        yield config, None if record["calibration"] is None else calibration
