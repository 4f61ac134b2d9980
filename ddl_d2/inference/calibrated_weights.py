"""Weights that carry their calibration: in the metadata of a `.safetensors` file, as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ddl_d2.checkpoint.saving import read_metadata, save_tensors
from ddl_d2.checkpoint.shipped import check_digest, digest, find_calibration
from ddl_d2.errors import CalibrationError
from ddl_d2.io.weights import load_checkpoint_file
from ddl_d2.predictions.calibration import Calibration
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.predictions.settings import prediction_settings

_KEY = "calibration"


def tensors_digest(weights: str | os.PathLike[str]) -> str:
    """Compute the sha256 of a file's tensors, which does not change with what else the file says.

    Raises:
        CheckpointError: the file cannot be read, or has other tensors than it states.
    """
    tensors = load_checkpoint_file(os.fspath(weights))["model"]
    check_digest(tensors, weights)
    return digest(tensors)


def attach_calibration(
    weights: str | os.PathLike[str], calibration: Calibration, output: str | os.PathLike[str]
) -> None:
    """Write a copy of weights that carries a calibration.

    Args:
        weights: a `.safetensors` file.
        calibration: made for these weights, with `tensors_sha256`.
        output: the file to write; another than `weights`.

    Raises:
        CalibrationError: the calibration is of other tensors, a file is no `.safetensors`, or both are the same.
        CheckpointError: the weights cannot be read.
        SaveError: the file cannot be written.
    """
    if not str(weights).endswith(".safetensors") or not str(output).endswith(".safetensors"):
        raise CalibrationError(f"{weights}, {output}: only .safetensors files carry a calibration")
    if os.path.realpath(weights) == os.path.realpath(output):
        raise CalibrationError(f"{output}: is the file to copy; name another one")
    found = tensors_digest(weights)
    if calibration.tensors_sha256 != found:
        raise CalibrationError(f"{weights}: the calibration on {calibration.corpus} is of other weights")
    said = {**read_metadata(weights), "sha256": found, _KEY: json.dumps(calibration.to_json())}
    said.pop("format", None)
    save_tensors(os.fspath(output), load_checkpoint_file(os.fspath(weights))["model"], **said)


def calibration_for(
    weights: str | os.PathLike[str], config: Mapping[str, Any], *, file: str | os.PathLike[str] | None = None
) -> tuple[Calibration | None, str]:
    """Find the calibration to use with weights: that of a file, or else the one that the weights carry.

    Args:
        weights: the file of weights; its tensors were compared with the digest it states when they were loaded.
        config: the model's.
        file: a calibration file, or the name of one that comes with ddl_d2.

    Returns:
        The calibration, None if there is none to use; and why one that the weights carry is not used, else "".

    Raises:
        CalibrationError: the file cannot be read, or was made for other weights or settings; what the weights carry is
            damaged.
        CheckpointError: the weights cannot be read, or no calibration has the name.
    """
    metadata = read_metadata(weights) if str(weights).endswith(".safetensors") else {}
    if file is not None:
        found = Calibration.load(find_calibration(file))
    elif _KEY in metadata:
        found = Calibration.from_json(_content(metadata[_KEY], weights), os.fspath(weights))
    else:
        return None, ""
    try:
        found.check_model(
            weights_sha256=file_sha256(weights),
            tensors_sha256=metadata.get("sha256", ""),
            settings=prediction_settings(config),
        )
    except CalibrationError as error:
        if file is not None:
            raise
        return None, f"{error}. Until then verdicts are uncalibrated"
    return found, ""


def _content(text: str, weights: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{os.fspath(weights)}: the calibration it carries is damaged ({error})") from error
