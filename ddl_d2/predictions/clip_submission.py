"""The submission file of challenges on clips (DDL-AV, AV-Deepfake1M), written from a store and read back for checking.

    prediction.txt     one line per clip: <file name>,<probability of fake with 4 digits>, e.g. 000001.mp4,0.9931
    prediction.json    {"<file name>": [[confidence, start, end], ...], ...}, seconds; every clip has an entry

Source: the challenges' rules, summarized in docs/metrics.md. AV-Deepfake1M has a semicolon for the comma.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ddl_d2.errors import SubmissionError
from ddl_d2.io.atomic import replacing
from ddl_d2.predictions.layout import check_image_id
from ddl_d2.predictions.store import PredictionStore
from ddl_d2.predictions.submission import add_member, read_member

LIST, SEGMENTS = "prediction.txt", "prediction.json"
SEPARATORS = {"ddl_av": ",", "av_deepfake1m": ";"}
"""What stands between name and score, by challenge."""

_CONFIDENCE_DIGITS, _TIME_DIGITS = 4, 3


def export_clip_submission(
    store: PredictionStore, path: str | os.PathLike[str], *, challenge: str = "ddl_av", max_segments: int = 100
) -> int:
    """Write a store's predictions as a submission.

    Args:
        store: predictions with segments.
        path: the zip file; it is replaced only once the new one is whole.
        challenge: of `SEPARATORS`.
        max_segments: the most of a clip; the surest are kept.

    Returns:
        The number of clips.

    Raises:
        SubmissionError: the store is empty or not about clips, or two clips would share a line.
        OSError: the file cannot be written.
    """
    if not len(store) or not store.has_segments:
        raise SubmissionError(f"{store.root}: a submission needs the segments of every clip, and the store has none")
    separator = SEPARATORS[challenge]
    names = _file_names(store.ids, separator)
    lines = [f"{name}{separator}{score:.4f}\n" for name, score in zip(names, store.scores, strict=True)]
    content = {
        name: [
            [round(c, _CONFIDENCE_DIGITS), round(start, _TIME_DIGITS), round(end, _TIME_DIGITS)]
            for c, start, end in store.segments[image_id][:max_segments].tolist()
        ]
        for image_id, name in zip(store.ids, names, strict=True)
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        add_member(archive, LIST, "".join(lines).encode("utf-8"), zipfile.ZIP_DEFLATED)
        add_member(archive, SEGMENTS, json.dumps(content).encode("utf-8"), zipfile.ZIP_DEFLATED)
    return len(names)


def read_clip_submission(
    path: str | os.PathLike[str], *, challenge: str = "ddl_av"
) -> dict[str, tuple[float, list[list[float]]]]:
    """Read a submission and check it against the format: {file name: (score, segments)}.

    Raises:
        SubmissionError: it cannot be read; a line is no name and probability, or comes twice; the two files name
            different clips; a segment is no [confidence in [0, 1], start, end] with 0 <= start <= end, or is surer than
            the one before it.
    """
    path = Path(path)
    separator = SEPARATORS[challenge]
    try:
        with zipfile.ZipFile(path) as archive:
            lines = read_member(archive, LIST).decode("utf-8").splitlines()
            content = json.loads(read_member(archive, SEGMENTS))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise SubmissionError(f"{path} cannot be read: {error}") from error
    scores: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        name, found, text = line.rpartition(separator)
        score = _number(text)
        if not found or not name or not 0 <= score <= 1:
            raise SubmissionError(
                f"{path}: {LIST} line {number} is not <name>{separator}<number in [0, 1]>: {line[:80]!r}"
            )
        if name in scores:
            raise SubmissionError(f"{path}: {LIST} line {number} repeats {name}")
        scores[name] = score
    if not isinstance(content, dict) or set(content) != set(scores):
        raise SubmissionError(f"{path}: {LIST} and {SEGMENTS} name different clips")
    for name, segments in content.items():
        _check_entry(segments, f"{path}: {name}")
    return {name: (score, content[name]) for name, score in scores.items()}


def _check_entry(segments: Any, where: str) -> None:
    if not isinstance(segments, list):
        raise SubmissionError(f"{where}: expected a list of segments")
    before = 1.0
    for segment in segments:
        if not isinstance(segment, list) or len(segment) != 3 or not all(math.isfinite(_number(v)) for v in segment):
            raise SubmissionError(f"{where}: {segment!r} is not [confidence, start, end]")
        confidence, start, end = segment
        if not 0 <= confidence <= before or not 0 <= start <= end:
            raise SubmissionError(f"{where}: {segment!r} is out of order, or no segment")
        before = confidence


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _file_names(image_ids: list[str], separator: str) -> list[str]:
    """Return file names without folders. Raises SubmissionError if two would share a line."""
    owners: dict[str, str] = {}
    for image_id in image_ids:
        name = PurePosixPath(check_image_id(image_id)).name
        if separator in name:
            raise SubmissionError(f"{image_id}: {separator!r} in the file name would break {LIST}")
        if name in owners:
            raise SubmissionError(f"{owners[name]} and {image_id} would share {name}: file names must be unique")
        owners[name] = image_id
    return list(owners)
