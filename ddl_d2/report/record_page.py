"""The page of an examination record: the same as its JSON file, for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddl_d2.report.chain import Chain
from ddl_d2.report.detector_findings import verdict_of
from ddl_d2.report.examination import Examination
from ddl_d2.report.findings import KINDS
from ddl_d2.report.html import (
    OVERLAY_SCRIPT,
    bullets,
    data_uri,
    escape,
    facts,
    overlay,
    page,
    paragraph,
    section,
)
from ddl_d2.report.words import headline, meaning, tone

_NAMED = {"forged": "Proposition 1", "authentic": "Proposition 2"}


def record_page(examination: Examination) -> str:
    """The page of a record, one HTML file that works from disk."""
    record = examination.record
    subject = record["subject"]
    parts = [
        "<h1>Examination record</h1>",
        paragraph(f"{subject['file']} · examined {record['examined_at']}", kind="faint"),
        verdict_box(verdict_of(record["findings"]), subject["kind"]),
        _picture(examination),
        _findings(record),
        _model(record["model"], record["calibration"]),
        _identification(record),
    ]
    return page(f"Examination record: {subject['file']}", "\n".join(filter(None, parts)), script=OVERLAY_SCRIPT)


def verdict_box(verdict: str, subject: str) -> str:
    """A verdict in words, with what it does not mean."""
    kind = f"verdict {tone(verdict)}".strip()
    return f'<div class="{kind}"><strong>{escape(headline(verdict))}</strong>{escape(meaning(verdict, subject))}</div>'


def finding_box(finding: Mapping[str, Any]) -> str:
    """One finding with its kind, limits and alternatives."""
    title = f'{escape(finding["title"])} <span class="kind">{escape(finding["kind"])}</span>'
    parts = [f"<h3>{title}</h3>", paragraph(finding["statement"])]
    more = f"<summary>Limits and other explanations</summary>{_labeled('Limits', finding['limits'])}"
    if finding["alternatives"]:
        more += _labeled("What else could explain it", finding["alternatives"])
    if finding["value"] is not None:
        values = json.dumps(finding["value"], ensure_ascii=False)
        more += f"<p>In figures</p><pre>{escape(values)}</pre>"
    return f'<article class="finding">{"".join(parts)}<details>{more}</details></article>'


def _labeled(label: str, texts: list[str]) -> str:
    return f"<p>{escape(label)}</p>{bullets(texts)}"


def _picture(examination: Examination) -> str:
    if examination.image is None:
        return ""
    forged = tone(verdict_of(examination.record["findings"])) == "forged"
    layer = "" if examination.layer is None else data_uri(examination.layer)
    shown = overlay(
        data_uri(examination.image, quality=90),
        layer,
        description="The examined image, with the forgery map over it",
        opacity=60 if forged else 0,
    )
    if not layer:
        note = "No map is shown: the model says nothing of an image without a face."
    elif forged:
        note = "Bright parts and the white line: where the model sees signs of forgery."
    else:
        note = "The map is not shown at first: it answers where, not whether, and lights up on authentic images, too."
    return section("Image and map", shown, paragraph(note, kind="faint"))


def _findings(record: Mapping[str, Any]) -> str:
    weighed = facts((_NAMED[name], text) for name, text in record["propositions"].items())
    kinds = facts(KINDS.items())
    boxes = "\n".join(map(finding_box, record["findings"]))
    return section("Propositions", weighed) + section(
        "Findings", f"<details><summary>What the kinds of findings mean</summary>{kinds}</details>", boxes
    )


def _model(model: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> str:
    known = [
        ("Model", model["name"]),
        ("Architecture", model["meta_architecture"]),
        ("Calibration", "none: uncalibrated" if calibration is None else calibration["corpus"]),
    ]
    parts = [facts(known), _labeled("What it was trained on", model["trained_on"])]
    if model["made_for"]:
        parts.append(_labeled("What it was made for", model["made_for"]))
    if model["not_made_for"]:
        parts.append(_labeled("What it was not made for, and cannot see", model["not_made_for"]))
    return section("The model", *parts)


def _identification(record: Mapping[str, Any]) -> str:
    """What identifies everything that the findings depend on."""
    subject, model, made = record["subject"], record["model"], record["environment"]
    known = [
        ("File", f"{subject['file']}, {subject['bytes']} bytes"),
        ("sha256 of the file", subject["sha256"]),
        ("sha256 of the weights", model["weights_sha256"]),
        ("sha256 of the config", model["config_sha256"]),
        ("sha256 of the model card", model["card_sha256"] or "none"),
        ("sha256 of the findings", record["findings_sha256"]),
        ("Examiner", record["examiner"] or "not named"),
        ("Device", f"{made['device']}, {made['threads']} threads, {made['instructions']}, {made['machine']}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)),
    ]
    how = "To repeat it: ddl-d2 replay with the JSON file beside this page. To check that nothing was changed: ddl-d2 "
    return section(
        "Identification", facts(known), paragraph(how + "replay with the folder of the records.", kind="faint")
    )


def add_record(chain: Chain, examination: Examination, source: Path) -> Path:
    """Write the record and the page of an examination into a chain.

    Args:
        chain: of the folder.
        examination: what was found.
        source: the examined file, by whose name the files are called.

    Returns:
        the JSON file.

    Raises:
        OSError: the disk refuses.
    """
    stem = re.sub(r"[^\w.-]+", "_", source.stem)[:60] or "file"
    content = json.dumps(examination.record, indent=2, ensure_ascii=True) + "\n"
    return chain.add(stem, content.encode(), record_page(examination).encode())
